"""The Lua files: each says what it takes and gives, and is sent with the functions it uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stem_actors.adapters.redis import connection
from stem_actors.adapters.redis.connection import Script

FOLDER = Path(connection.__file__).parent / "scripts"
NAMES = sorted(path.stem for path in FOLDER.glob("*.lua") if path.stem != "common")


@pytest.mark.parametrize("name", NAMES)
def test_a_script_names_its_keys_arguments_and_result(name: str) -> None:
    header = (FOLDER / f"{name}.lua").read_text().split("\n\n")[0]
    for part in ("KEYS", "ARGV", "Result"):
        assert re.search(rf"^-- {part} ", header, re.MULTILINE), part


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_sent_with_every_function_it_uses(name: str) -> None:
    source = Script.named(name).source
    common = (FOLDER / "common.lua").read_text()
    for function in re.findall(r"^local function (\w+)", common, re.MULTILINE):
        if re.search(rf"(?<!function )\b{function}\(", source):
            assert f"local function {function}(" in source
