"""The example of unique tasks, started as its README says, on a file and on Redis."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stem_actors.config import SETTINGS, resolve
from tests.fixtures.redis_server import new_namespace, shared_url

EXAMPLE = Path(__file__).parents[2] / "examples/unique_tasks"
PROGRAMS = Path(sys.executable).parent

pytestmark = [
    pytest.mark.skipif(not (PROGRAMS / "stem-node").exists(), reason="stem-node is not installed beside this Python: make venv"),
    pytest.mark.xdist_group("examples"),
]


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.soak), "redis"])
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("STEM_")},
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "STEM_BROKER_URL": shared_url() if request.param == "redis" else f"sqlite:///{tmp_path}/example.db",
        "STEM_NAMESPACE": new_namespace(),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(environ: dict[str, str]) -> str:
    """What it prints; it ends by itself, with everything that it has started."""
    pipe = subprocess.PIPE
    command = [str(EXAMPLE / "run")]
    with subprocess.Popen(
        command, env=environ, text=True, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=55)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, out + err
    return out


def test_a_digest_is_sent_once_within_a_quarter_of_an_hour_whoever_asks_again(environ: dict[str, str]) -> None:
    first, second = run(environ), run(environ)
    ids = re.findall(r"^enqueued: (\S+) for user 42", first + second, re.MULTILINE)
    assert len(ids) == 4
    assert len(set(ids)) == 1
    assert re.findall(r"^sent: digest for user (\d+), by task (\S+)", first + second, re.MULTILINE).count(("42", ids[0])) == 2
    assert len(set(re.findall(r"^enqueued: (\S+) for user 7", first + second, re.MULTILINE))) == 1
    assert re.findall(r"has kept out (\d)$", first + second, re.MULTILINE) == ["1", "3"]


def test_example_settings_are_settings() -> None:
    lines = (EXAMPLE / ".env.example").read_text().splitlines()
    given = {variable: value for variable, _, value in (line.partition("=") for line in lines if line and line[0] != "#")}
    assert set(given) - {setting.variable for setting in SETTINGS} == set()
    resolve({}, given)


def test_containers_run_what_the_script_runs() -> None:
    services = YAML(typ="safe").load(EXAMPLE / "compose.yaml")["services"]
    build = services["worker"]["build"]
    assert (EXAMPLE / build["context"] / build["dockerfile"]).resolve() == EXAMPLE / "Dockerfile"
    script = (EXAMPLE / "run").read_text()
    assert f"{services['worker']['command']} --admin" in script
    assert script.splitlines()[-1] == services["producer"]["command"]
