"""Executors: the processes that run task functions, and nothing else.

`frames.py` is the language between the two sides, `child.py` all that runs inside, `process.py` the worker's side,
`preload.py` what the forkserver starts with, `context.py` what a task sees of its own run.
"""
