"""The application: three tasks that each learn one thing about one Python file. Start reading here.

A task is a function with a name. What it takes and returns travels between processes, so it is made of plain values. It may run
more than once, since its process can die at any moment; these only read, so a second run gives the same result and hurts nobody.

    stem-node --app tasks:app         runs them; start it in this folder
    tokens.enqueue("/a/file.py")      asks for one run; `.get()` on what it returns waits for the result
    tokens("/a/file.py")              runs it here and now, as any function
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import runs

from stem_actors import Stem

__all__ = ["ALL", "Facts", "app", "definitions", "imports", "tokens"]

Facts: TypeAlias = dict[str, Any]

app = Stem()  # where tasks wait is a setting: --broker, or STEM_BROKER_URL

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_CLASSES = (ast.ClassDef,)
_LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.comprehension)
_BRANCHES = (ast.If, ast.IfExp, ast.BoolOp, ast.ExceptHandler, ast.match_case, *_LOOPS)
# The library's tests hold files that are wrong on purpose.
_NO_PYTHON = (SyntaxError, ValueError, RecursionError, tokenize.TokenError)


@app.task(name="stdlib.tokens")
def tokens(path: str) -> Facts:
    """How many tokens a file has."""
    source, facts = _read(path)
    try:
        facts["tokens"] = sum(1 for _ in tokenize.tokenize(io.BytesIO(source).readline))
    except _NO_PYTHON as error:
        facts["broken"] = str(error)
    return facts


@app.task(name="stdlib.definitions")
def definitions(path: str) -> Facts:
    """What a file defines and how complex it is: functions, classes, and places where it may go one way or another."""
    source, facts = _read(path)
    nodes = _nodes(source, facts)
    for name, kinds in (("functions", _FUNCTIONS), ("classes", _CLASSES), ("branches", _BRANCHES)):
        facts[name] = sum(isinstance(node, kinds) for node in nodes)
    return facts


@app.task(name="stdlib.imports")
def imports(path: str) -> Facts:
    """Which top-level modules a file imports."""
    source, facts = _read(path)
    found: set[str] = set()
    for node in _nodes(source, facts):
        match node:
            case ast.Import(names):
                found |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.partition(".")[0])
    facts["imports"] = sorted(found)
    return facts


ALL = (tokens, definitions, imports)


def _read(path: str) -> tuple[bytes, Facts]:
    """The file's bytes, and the facts that every result holds."""
    runs.note()
    source = Path(path).read_bytes()
    return source, {"path": path, "sha256": hashlib.sha256(source).hexdigest()}


def _nodes(source: bytes, facts: Facts) -> list[ast.AST]:
    """The syntax tree, flat; empty for a file that is no Python, which is then said in `facts`."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return list(ast.walk(ast.parse(source)))
    except _NO_PYTHON as error:
        facts["broken"] = str(error)
        return []
