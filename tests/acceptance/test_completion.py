"""Completion scripts, tried in the shells themselves where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.shell import Shell


@pytest.mark.parametrize("program", ["stem", "stem-node", "stem-chaos"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_valid(tmp_path: Path, shell: str, program: str) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(Shell(tmp_path).out("stem", "completion", shell, "--program", program))
    checked = subprocess.run([found, "-n", str(script)], capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(Shell(tmp_path).out("stem", "completion", "bash"))

    def completions(*words: str) -> set[str]:
        asked = f"COMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words)}; _shtab_stem; echo ${{COMPREPLY[@]}}"
        line = f"source {tmp_path}/script; {asked}"
        return set(subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=True).stdout.split())

    assert {"enqueue", "worker", "completion"} <= completions("stem")
    assert {"ping", "revoke", "status"} <= completions("stem", "worker")
    assert {"bash", "zsh", "fish"} <= completions("stem", "completion")


def test_an_unknown_shell_is_wrong_usage(tmp_path: Path) -> None:
    code, text = Shell(tmp_path).code("stem", "completion", "ksh")
    assert (code, "ksh" in text) == (64, True)
