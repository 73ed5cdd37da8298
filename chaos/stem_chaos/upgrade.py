"""Another version of Stem, in an environment of its own: for nodes that are replaced by today's, and a producer beside them.

The old nodes run today's workloads, laid over their own environment as the one package `stem_chaos`. What of the recording fits
the old version is found out by trying: runs are recorded where it has middleware, leases where it has the setting for a probe.
Where not, those nodes are judged by what the client and the other nodes wrote down: enqueued tasks, records, dead letters, and
the tasks' own accounts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import stem_chaos
from stem_actors.errors import OperatorError, UsageError
from stem_chaos.workload.tasks import APP

__all__ = ["OldVersion", "check_source", "install_old"]

_PATIENCE = 600.0
_VERSION = re.compile(r"v?[0-9][A-Za-z0-9.+!-]*")


@dataclass(frozen=True, slots=True)
class OldVersion:
    """An installed one. `version` as it says itself, `source` what it was made from.

    `has_probe`      its workers record what they do with leases
    `has_recording`  its executors record what they run
    """

    source: str
    version: str
    programs: Path
    overlay: Path
    has_probe: bool
    has_recording: bool

    @property
    def node(self) -> list[str]:
        """The command that starts a node of it."""
        return [str(self.programs / "python"), "-m", "stem_cli.node_command"]

    def environment(self) -> Mapping[str, str]:
        """What its processes need in their environment, beside the settings."""
        path = _alone(self.overlay)
        return path if self.has_probe else {**path, "STEM_CHAOS_PROBE": ""}

    def enqueue(self, task: str, args: Sequence[object], task_id: str, environment: Mapping[str, str]) -> int:
        """Enqueue a task with this version's own command; its exit code."""
        words = [str(self.programs / "python"), "-m", "stem_cli.command", "enqueue", task]
        words += ["--args", json.dumps(list(args)), "--task-id", task_id]
        done = subprocess.run(words, env={**environment, **self.environment()}, capture_output=True, timeout=60, check=False)
        return done.returncode


def check_source(source: str) -> None:
    """Refuse what names no version.

    Raises:
        UsageError: `source` is no wheel, no commit and no version.
    """
    if source.endswith(".whl"):
        if not Path(source).is_file():
            raise UsageError(f"there is no wheel {source}")
    elif _commit(source) is None and not _VERSION.fullmatch(source):
        raise UsageError(f"--from is {source!r}, which is no wheel, no commit of the repository here, and no version")


def install_old(source: str, directory: Path) -> OldVersion:
    """Make an environment with an old version in `directory`.

    Raises:
        UsageError: as `check_source`.
        OperatorError: it cannot be installed; the end of what pip says is in the message.
    """
    check_source(source)
    wanted, text = _requirement(source, directory)
    home = directory / "venv"
    venv.create(home, with_pip=True)
    programs = home / "bin"
    _run([programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted], f"install {text}")
    overlay = _laid_over(directory, programs)
    has_recording = _works(programs, overlay, "import stem_chaos.application")
    if not has_recording:
        _let_run_unrecorded(overlay)
    return OldVersion(
        source=text,
        version=_run([programs / "python", "-P", "-c", _SAY_VERSION], "ask it for its version").strip(),
        programs=programs,
        overlay=overlay,
        has_probe=has_recording and _works(programs, overlay, _TRY_PROBE),
        has_recording=has_recording,
    )


_SAY_VERSION = "from importlib.metadata import version; print(version('stem-actors'))"
_SAY_PLACE = "import sysconfig; print(sysconfig.get_path('purelib'))"
_TRY_PROBE = "import stem_chaos.probe; from stem_actors import Settings; Settings().chaos_probe"
_UNRECORDED = '''"""The application as it is: the Stem that runs it has no middleware that could record it."""

import os
from importlib import import_module

module, _, attribute = os.environ["STEM_CHAOS_APP"].partition(":")
app = getattr(import_module(module), attribute or "app")
'''


def _alone(overlay: Path) -> dict[str, str]:
    """Variables that let a Python find no Stem but the old one, also where today's lies in the working directory."""
    return {"PYTHONPATH": str(overlay), "PYTHONSAFEPATH": "1"}


def _laid_over(directory: Path, programs: Path) -> Path:
    """A directory for PYTHONPATH: the old packages, and today's `stem_chaos` file by file, so that one can be replaced."""
    overlay, today = directory / "overlay", Path(stem_chaos.__file__).parent
    package = overlay / "stem_chaos"
    package.mkdir(parents=True)
    for path in today.iterdir():
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)
    site = Path(_run([programs / "python", "-P", "-c", _SAY_PLACE], "find its packages").strip())
    for name in ("stem_actors", "stem_cli"):
        (overlay / name).symlink_to(site / name)
    return overlay


def _let_run_unrecorded(overlay: Path) -> None:
    path = overlay / "stem_chaos/application.py"
    path.unlink()
    path.write_text(_UNRECORDED, encoding="utf-8")


def _requirement(source: str, directory: Path) -> tuple[str, str]:
    """What pip is to install, and the same for people."""
    if source.endswith(".whl"):
        path = Path(source).absolute()
        return f"stem-actors[redis,postgres] @ {path.as_uri()}", path.name
    commit = _commit(source)
    if commit is not None:
        return f"stem-actors[redis,postgres] @ {_exported(commit, directory).as_uri()}", f"commit {commit[:12]}"
    return f"stem-actors[redis,postgres]=={source.removeprefix('v')}", f"version {source}"


def _commit(source: str) -> str | None:
    """The commit that a tag or an abbreviation names in the repository here, when that is Stem's."""
    root = Path(stem_chaos.__file__).parents[2]
    if not (root / ".git").exists() or not re.fullmatch(r"[A-Za-z0-9._/~^-]+", source) or source.startswith("-"):
        return None
    for name in (source, f"v{source}"):
        words = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
        found = subprocess.run(words, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return found.stdout.strip()
    return None


def _exported(commit: str, directory: Path) -> Path:
    """The sources of a commit, in a directory of their own."""
    root, target = Path(stem_chaos.__file__).parents[2], directory / "source"
    target.mkdir(parents=True)
    archive = directory / "source.tar"
    _run(["git", "-C", root, "archive", "--output", archive, commit], f"export commit {commit}")
    _run(["tar", "-x", "-f", archive, "-C", target], f"unpack commit {commit}")
    archive.unlink()
    return target


def _run(words: Sequence[object], what: str) -> str:
    """What a command prints."""
    try:
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=_PATIENCE, env=_clean(), check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorError(f"could not {what}: {error}") from error
    if done.returncode != 0:
        raise OperatorError(f"could not {what}: {' '.join((done.stdout + done.stderr).splitlines()[-4:])}")
    return done.stdout


def _works(programs: Path, overlay: Path, code: str) -> bool:
    """Whether the old version can do this with today's `stem_chaos`."""
    environment = {**_clean(), **_alone(overlay), "STEM_CHAOS_DIRECTORY": str(overlay.parent / "trial")}
    environment["STEM_CHAOS_APP"] = APP
    tried = subprocess.run([str(programs / "python"), "-c", code], capture_output=True, env=environment, timeout=60, check=False)
    return tried.returncode == 0


def _clean() -> dict[str, str]:
    """Our environment without what would lead another Python to our packages, or change its settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("STEM_", "PYTHON", "VIRTUAL_ENV"))}
