"""The code blocks of our Markdown pages, in the order in which a reader meets them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "blocks", "commands", "pages"]

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\s*$")
_INDENTED = re.compile(r"^ {4}(?=stem(-node|-chaos)? )")
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=.*")
_ENDS_A_COMMAND = {"|", "||", "&&", "&", ";", ">", ">>", "2>", "<"}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, the line of the page on which the text begins."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that a Python block is to be saved as: its first line is `# name.py`."""
        found = re.match(r"# ([\w/]+\.py)\n", self.text)
        return found[1] if found and self.language == "python" else None


def pages() -> list[Path]:
    """Every page of the documentation, README included."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, and indented lines that are commands of ours as blocks of their own."""
    language: str | None = None
    text: list[str] = []
    start = 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if language is None and fence:
            language, text, start = fence[1], [], number + 1
        elif language is not None and line == "```":
            yield Block(language, "\n".join(text) + "\n", start)
            language = None
        elif language is not None:
            text.append(line)
        elif _INDENTED.match(line):
            yield Block("bash", line.strip() + "\n", number)
    assert language is None, f"{page}:{start}: this block does not end"


def commands(text: str) -> Iterator[list[str]]:
    """Our commands (`stem`, `stem-node`, `stem-chaos`) in a shell block as lists of words.

    Redirections and what follows a pipe are left out.
    """
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and _ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        if words and words[0] in ("stem", "stem-node", "stem-chaos"):
            end = next((index for index, word in enumerate(words) if word in _ENDS_A_COMMAND), len(words))
            yield words[:end]
