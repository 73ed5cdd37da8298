"""What a type checker says to users of the API."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]

TASKS = """
from typing import assert_type
from stem_actors import AsyncTask, Call, Handle, Stem, Task, current_task

app = Stem()

@app.task
def send(address: str, copies: int = 1) -> bool:
    return True

@app.task(queue="mail", max_retries=5, tags=["mail"])
def fetch(url: str) -> bytes:
    return b""

@app.task
async def crawl(url: str) -> list[str]:
    return []

@app.task(name="slow", soft_time_limit=5)
async def slow() -> None:
    current_task().progress(0.5)
"""

RIGHT = """
assert_type(send("a@b.c"), bool)
assert_type(send.enqueue("a@b.c", copies=2), Handle[bool])
assert_type(send.enqueue("a@b.c").get(timeout=1), bool)
assert_type(send.options(countdown=5, queue="x").enqueue("a@b.c").get(), bool)
assert_type(send.call("a@b.c"), Call[bool])
assert_type(app.enqueue_many([send.call("a"), send.call("b")]), list[Handle[bool]])
assert_type(fetch.enqueue("u").get(), bytes)
assert_type(crawl.enqueue("u").get(), list[str])
assert_type(app.handle("id").status().attempt, int)

async def use() -> None:
    assert_type(await crawl("u"), list[str])
    assert_type(await crawl.aenqueue("u"), Handle[list[str]])
    assert_type(await (await send.aenqueue("a")).aget(), bool)
    assert_type(await slow(), None)
"""

WRONG = {
    "send.enqueue(1)": 'incompatible type "int"; expected "str"',
    "send.enqueue()": 'Missing positional argument "address"',
    'send.enqueue("a", sopies=2)': 'Unexpected keyword argument "sopies"',
    "send.options(countdown=5).enqueue(1)": 'incompatible type "int"; expected "str"',
    "send.options(delay=5)": 'Unexpected keyword argument "delay"',
    'send.call(b"a")': 'incompatible type "bytes"; expected "str"',
    'x: str = send.enqueue("a").get()': "Incompatible types in assignment",
    "crawl.enqueue(1)": 'incompatible type "int"; expected "str"',
    "slow.enqueue(1)": "Too many arguments",
    "from stem_actors import Stum": 'has no attribute "Stum"',
    'app.task(queu="x")': 'Unexpected keyword argument "queu"',
}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """mypy's errors about one file with everything in it, by line."""
    source = tmp_path_factory.mktemp("typing") / "snippet.py"
    source.write_text(f"{TASKS}{RIGHT}\n# wrong\n" + "\n".join(WRONG) + "\n")
    config = ROOT / "setup.cfg"
    printed, complaint, _ = api.run(
        ["--config-file", str(config), "--cache-dir", str(ROOT / ".mypy_cache"), "--hide-error-context", str(source)]
    )
    assert complaint == ""
    lines = source.read_text().splitlines()
    errors: dict[str, str] = {}
    for number, text in re.findall(r"snippet\.py:(\d+):.*?error: (.*)", printed):
        errors.setdefault(lines[int(number) - 1], text)
    return [f"{line} → {text}" for line, text in errors.items()]


def test_right_use_has_no_errors(verdict: list[str]) -> None:
    assert [error for error in verdict if error.split(" → ")[0] not in WRONG] == []


@pytest.mark.parametrize("line", WRONG)
def test_wrong_use_is_an_error(verdict: list[str], line: str) -> None:
    (error,) = [error for error in verdict if error.startswith(f"{line} → ")]
    assert WRONG[line] in error
