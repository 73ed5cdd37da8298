"""Another version of Stem: what `--from` may name, and that an old node finds no package of today's but the one laid over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stem_actors.errors import UsageError
from stem_chaos.upgrade import OldVersion, check_source

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("source", ["0.1.0", "v2.0.0rc1"])
def test_a_version_is_left_to_the_index(source: str) -> None:
    check_source(source)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the sources came without their repository")
def test_a_commit_is_looked_up_in_the_repository_here() -> None:
    check_source("HEAD")


@pytest.mark.parametrize("source", ["", "no such branch", "--upload-pack=x", "stem-actors", "none.whl"])
def test_what_names_no_version_is_refused(source: str) -> None:
    with pytest.raises(UsageError):
        check_source(source)


def test_a_wheel_is_taken_where_it_lies(tmp_path: Path) -> None:
    wheel = tmp_path / "stem_actors-0.1.0-py3-none-any.whl"
    wheel.touch()
    check_source(str(wheel))


def test_an_old_node_finds_its_own_packages_also_in_a_checkout(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    (overlay / "stem_actors").mkdir(parents=True)
    (overlay / "stem_actors/__init__.py").write_text("is_old = True\n")
    old = OldVersion("a wheel", "0.1.0", Path(sys.executable).parent, overlay, has_probe=False, has_recording=False)
    environment = {**os.environ, **old.environment()}
    asked = [sys.executable, "-c", "import stem_actors; print(stem_actors.is_old)"]
    done = subprocess.run(asked, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    assert done.stdout == "True\n", done.stderr
    assert environment["STEM_CHAOS_PROBE"] == ""
