"""Environment files: `KEY=VALUE` lines, as systemd reads them, for the processes that `stem worker multi` starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stem_actors.errors import ConfigError

__all__ = ["EnvironmentFile", "parse", "read"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """What a file sets, and which of its lines were left out: number and reason, never their text, which may be a secret."""

    values: Mapping[str, str]
    problems: Sequence[str] = ()


def read(path: str) -> EnvironmentFile:
    """Read a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the environment file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the environment file {path} is no UTF-8 text") from error
    return parse(text, path)


def parse(text: str, path: str) -> EnvironmentFile:
    """Empty lines and those that begin with `#` say nothing; `export ` may stand first; the last of two equal keys counts.

    A value in quotes is what stands between them; in double quotes `\\n` is a line feed, `\\"` a quote, `\\\\` a backslash.
    """
    values: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not _NAME.fullmatch(name):
            problems.append(f"{path}:{number}: not KEY=VALUE")
        elif value[:1] in ("'", '"') and (len(value) < 2 or value[-1] != value[0]):
            problems.append(f"{path}:{number}: the quote before the value of {name} is not closed")
        else:
            values[name] = _unquoted(value)
    return EnvironmentFile(values, problems)


def _unquoted(value: str) -> str:
    match value[:1]:
        case "'":
            return value[1:-1]
        case '"':
            return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), value[1:-1])
        case _:
            return value
