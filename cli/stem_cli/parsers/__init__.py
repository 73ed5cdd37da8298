"""The command lines of `stem`, `stem-node` and `stem-chaos`: a module for each program, and for each group of `stem`'s commands.

Man pages are built from this package where nothing else of ours is there, so it imports the standard library and rich-argparse
only. What a subcommand does is named as text (`handler`) and imported when it is run. Values are passed on as they were written:
`config.py` and the commands know their grammars. A test holds the flags here and the settings there together.
"""
