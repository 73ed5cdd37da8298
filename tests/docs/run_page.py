"""Runs the Python blocks of one page in the working directory, as a reader would: `python run_page.py PAGE`.

A block whose first line is `# name.py` is saved under that name and imported; any other goes on where the one before it ended.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.docs.pages import blocks


def main() -> None:
    page = Path(sys.argv[1])
    sys.path[0] = str(Path.cwd())
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.language != "python":
            continue
        if block.file is None:
            # Lines are counted as in the page, so that a traceback leads there.
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
            continue
        file = Path(block.file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")
        importlib.import_module(".".join(file.with_suffix("").parts))


if __name__ == "__main__":
    main()
