"""A virtual environment with all that is compared, so that nothing of it comes near the project's own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

from stem_actors.errors import OperatorError, UsageError

__all__ = ["ROOT", "Environment"]

ROOT = Path(__file__).parents[2]

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_SETTINGS = ("STEM_", "PYTHON", "PG", "CELERY_", "DRAMATIQ_", "TASKIQ_", "RQ_", "PROCRASTINATE_")  # PG: libpq's and PgQueuer's
_UNREACHABLE = ("Connection", "resolution", "Could not fetch URL", "ProxyError", "Timeout", "unreachable", "SSLError")


class Environment:
    """The one in `folder`, made when it is missing. Stem itself runs from the sources, its libraries are installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self.python = self._folder / "bin" / "python"

    def variables(self) -> Mapping[str, str]:
        """For a process that runs in it: finds the sources, and nothing of the caller's settings."""
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_SETTINGS)}
        return kept | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}"}

    def set_up(self, say: Callable[[str], None]) -> None:
        """Make it and install what is compared, unless that was done for these very requirements.

        Raises:
            OperatorError: there is no network, or an installation failed.
            UsageError: the folder holds something else.
        """
        requirements = [*_REQUIREMENTS.read_text().splitlines(), *_own_requirements()]
        stamp = self._folder / "requirements.sha256"
        digest = sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()
        if stamp.exists() and stamp.read_text() == digest:
            return
        if not (self._folder / "pyvenv.cfg").exists():
            if self._folder.exists() and (not self._folder.is_dir() or any(self._folder.iterdir())):
                raise UsageError(f"{self._folder} is there and is no virtual environment; name another place with --venv")
            say(f"making {self._folder}")
            _run([sys.executable, "-m", "venv", str(self._folder)], "the environment could not be made")
        say(f"installing what is compared into {self._folder}")
        chosen = [line for line in requirements if line and not line.startswith("#")]
        options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "2"]
        _run([str(self.python), "-m", "pip", "install", *options, *chosen], "pip failed")
        stamp.write_text(digest)


def _own_requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *optional["redis"], *optional["postgres"]]


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    text = done.stdout + done.stderr
    if any(sign in text for sign in _UNREACHABLE):
        failure = "pip cannot reach the package index; check the network, HTTPS_PROXY and PIP_INDEX_URL"
    raise OperatorError(f"{failure}: " + "\n".join(text.strip().splitlines()[-10:]))
