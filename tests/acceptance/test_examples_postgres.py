"""The examples with Postgres, each started as its README says: on servers that are named, or on its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stem_actors import Settings, Stem, TaskState
from stem_actors.config import SETTINGS, resolve
from stem_chaos.link import free_port
from stem_cli.parsers.node import build_node_parser
from tests.fixtures import postgres_server, redis_server
from tests.fixtures.node import eventually, is_alive
from tests.fixtures.redis_server import new_namespace

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = Path(sys.executable).parent
NAMES = ("postgres_worker", "redis_postgres_worker", "mixed_cluster", "postgres_tls")
PREFIXES = ("REDIS_", "POSTGRES_")

pytestmark = [
    pytest.mark.skipif(not (PROGRAMS / "stem-node").exists(), reason="stem-node is not installed beside this Python: make venv"),
    pytest.mark.xdist_group("examples"),
]


class Stage:
    """Where examples run: an environment, and a folder for servers of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.namespace = new_namespace()
        ours = ("STEM_", "PG", *(f"{prefix}STEM_" for prefix in PREFIXES))
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "TMPDIR": str(folder),
            "STEM_NAMESPACE": self.namespace,
            "POSTGRES_PORT": str(free_port()),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @contextmanager
    def start(self, *command: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """A command in the folder of the examples, with these variables; it and what it starts is gone afterwards."""
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environ = {**self.environ, **variables}
        with subprocess.Popen(command, cwd=EXAMPLES, env=environ, text=True, start_new_session=True, **streams) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def run(self, name: str, **variables: str) -> str:
        """What an example prints; it ends by itself, with everything that it has started."""
        with self.start(f"{name}/run", **variables) as process:
            out, err = process.communicate(timeout=55)
        assert (process.returncode, "Traceback" in err) == (0, False), out + err
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
        assert list(self.folder.iterdir()) == []
        return out

    def states(self, url: str, task_ids: list[str]) -> list[TaskState]:
        """What the store at `url` says of tasks; `queued` of those that it does not know."""
        with Stem(settings=Settings(broker_url=url, namespace=self.namespace)) as app:
            return [app.handle(each).status().state for each in task_ids]

    def close(self) -> None:
        """End the servers that an example which was killed has left behind."""
        for file in (*self.folder.glob("*/redis.pid"), *self.folder.glob("*/data/postmaster.pid")):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text().split()[0]), signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def stage() -> Iterator[Stage]:
    # Not pytest's own folder, which is closed to the user that Postgres runs as; and short, for the names of sockets.
    folder = Path(tempfile.mkdtemp(prefix="stem-examples-"))
    folder.chmod(0o755)
    made = Stage(folder)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["named", pytest.param("own", marks=pytest.mark.soak)])
def urls(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Of Redis and of Postgres; empty where an example is to start its own."""
    if request.param == "named":
        return redis_server.shared_url(), postgres_server.shared_url()
    redis_server.need_server()
    postgres_server.need_server()
    return "", ""


def ids(printed: str) -> list[str]:
    return re.findall(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}\b", printed)


def test_postgres_alone_brings_reports_to_their_end_and_keeps_what_came_of_them(stage: Stage, urls: tuple[str, str]) -> None:
    _, postgres = urls
    printed = stage.run("postgres_worker", STEM_BROKER_URL=postgres)
    done, listed = printed.split("$ stem task list")
    assert re.findall(r"^done: (.*)$", done, re.MULTILINE) == [
        f"Generated analytics report for {region} (attempt 0)" for region in ("us-east", "eu-west", "ap-south")
    ]
    assert len(re.findall(r"report\.generate \| reports \| succeeded \|.* postgres-worker-1-1 ", listed)) == 3
    assert set(ids(done)) == set(ids(listed))
    if postgres:
        assert stage.states(postgres, ids(done)) == [TaskState.SUCCEEDED] * 3


def test_an_enqueuer_that_is_told_to_keep_no_results_says_what_it_misses(stage: Stage) -> None:
    variables = {"STEM_BROKER_URL": f"sqlite:///{stage.folder}/example.db", "STEM_RESULT_BACKEND_URL": "none"}
    with stage.start(sys.executable, "postgres_worker/enqueuer.py", **variables) as process:
        _, err = process.communicate(timeout=55)
    assert process.returncode == 1
    assert err.startswith("enqueuer: results are switched off (STEM_RESULT_BACKEND_URL=none)")


def test_tasks_go_by_redis_and_their_results_to_postgres(stage: Stage, urls: tuple[str, str]) -> None:
    redis, postgres = urls
    printed = stage.run("redis_postgres_worker", STEM_BROKER_URL=redis, STEM_RESULT_BACKEND_URL=postgres)
    assert re.findall(r"^done: (.*)$", printed, re.MULTILINE) == [
        f"Processed {item} (attempt 0)" for item in ("alpha", "beta", "gamma")
    ]
    assert re.search(r"^broker +\| ok +\| .* published, received and settled a task \(Redis ", printed, re.MULTILINE)
    assert re.search(r"^backend +\| ok +\| .* stored and read a record \(Postgres ", printed, re.MULTILINE)
    if postgres:
        assert stage.states(postgres, ids(printed)) == [TaskState.SUCCEEDED] * 3
        assert stage.states(redis, ids(printed)) == [TaskState.QUEUED] * 3  # nothing is known there


def test_one_program_enqueues_by_redis_and_by_postgres_and_each_has_its_worker(stage: Stage, urls: tuple[str, str]) -> None:
    redis, postgres = urls
    printed = stage.run(
        "mixed_cluster",
        REDIS_STEM_BROKER_URL=redis,
        REDIS_STEM_RESULT_BACKEND_URL=redis,
        POSTGRES_STEM_BROKER_URL=postgres,
        POSTGRES_STEM_RESULT_BACKEND_URL=postgres,
    )
    done, on_redis, on_postgres = printed.split("$ stem worker status")
    assert re.findall(r"^done: (\S+) done by way of (\w+) \(attempt 0\), as ", done, re.MULTILINE) == [
        ("cache-warmup", "Redis"),
        ("metrics-snapshot", "Redis"),
        ("billing-report", "Postgres"),
        ("inventory-rollup", "Postgres"),
    ]
    for shown, worker, queue in (
        (on_redis, "redis-worker-1-1", "redis-tasks"),
        (on_postgres, "postgres-worker-1-1", "postgres-tasks"),
    ):
        assert re.findall(r"^Worker (\S+)", shown, re.MULTILINE) == [worker]
        assert f"queues: {queue}\n" in shown
    if postgres:
        there, elsewhere = [TaskState.SUCCEEDED] * 2, [TaskState.QUEUED] * 2
        assert stage.states(redis, ids(done)) == there + elsewhere
        assert stage.states(postgres, ids(done)) == elsewhere + there


def test_an_enqueuer_that_is_not_told_of_both_brokers_says_what_is_missing(stage: Stage) -> None:
    with stage.start(sys.executable, "mixed_cluster/enqueuer.py", REDIS_STEM_BROKER_URL="redis://127.0.0.1:1/0") as process:
        _, err = process.communicate(timeout=55)
    assert process.returncode == 64
    missing = "REDIS_STEM_RESULT_BACKEND_URL, POSTGRES_STEM_BROKER_URL, POSTGRES_STEM_RESULT_BACKEND_URL not set"
    assert err.startswith(f"enqueuer: {missing}")


def test_every_connection_to_a_postgres_of_its_own_is_encrypted_and_without_trust_there_is_none(stage: Stage) -> None:
    redis_server.need_server()
    postgres_server.need_server()
    printed = stage.run("postgres_tls")
    done, refused = printed.split("$ STEM_TLS_CA_CERT= stem health")
    assert re.findall(r"^done: (.*), as ", done, re.MULTILINE) == [
        f"Generated {name} (attempt 0)" for name in ("revenue", "churn")
    ]
    connections = re.findall(r"^connection: stem-(\d+)\S*: (.*)$", done, re.MULTILINE)
    assert len({pid for pid, _ in connections}) == 2, "those of the worker and of the enqueuer"
    assert all(re.fullmatch(r"TLSv1\.[23], \S+, from /CN=stem", how) for _, how in connections), connections
    assert re.search(
        r"^backend +\| error +\| .*TLS handshake failed for postgres://localhost:\d+/stem_test: ", refused, re.MULTILINE
    )
    assert "It is not signed by the system's authorities: set STEM_TLS_CA_CERT to the authority that signed it." in refused
    assert re.search(r"CA certificate system, client certificate \S+/client\.crt, allow insecure False$", refused, re.MULTILINE)


def test_ctrl_c_ends_an_example_and_the_postgres_that_it_has_started(stage: Stage) -> None:
    postgres_server.need_server()
    with stage.start("postgres_worker/run") as process:
        assert process.stdout is not None
        assert any(line.startswith("enqueued: ") for line in iter(process.stdout.readline, "")), "reports are under way"
        (folder,) = stage.folder.iterdir()
        server = int((folder / "data/postmaster.pid").read_text().split()[0])
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=50)
    assert process.returncode == 130, err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    eventually(lambda: not is_alive(server), 5, "its Postgres is left running")
    assert list(stage.folder.iterdir()) == []


# ---------------------------------------------------------------- their settings and their compose files


def read(name: str) -> dict[str, str]:
    lines = (EXAMPLES / name / ".env.example").read_text().splitlines()
    return {variable: value for variable, _, value in (line.partition("=") for line in lines if line and line[0] != "#")}


def check(variables: Mapping[str, str]) -> None:
    """Those of Stem, with the prefixes of the mixed cluster or without, are settings and have values that fit."""
    for prefix in ("", *PREFIXES):
        ours = {name.removeprefix(prefix): value for name, value in variables.items() if name.startswith(f"{prefix}STEM_")}
        assert set(ours) - {setting.variable for setting in SETTINGS} == set()
        resolve({}, ours)


@pytest.mark.parametrize("name", NAMES)
def test_example_settings_are_settings(name: str) -> None:
    check(read(name))


@pytest.mark.parametrize("name", NAMES)
def test_containers_run_what_the_script_runs(name: str) -> None:
    services = YAML(typ="safe").load(EXAMPLES / name / "compose.yaml")["services"]
    script = (EXAMPLES / name / "run").read_text()
    programs = {service: each for service, each in services.items() if "build" in each}
    assert programs.pop("enqueuer")["command"] == script.splitlines()[-1] == "python enqueuer.py"
    assert len(programs) == script.count("stem-node ")
    for each in programs.values():
        assert (
            EXAMPLES / name / each["build"]["context"] / each["build"]["dockerfile"]
        ).resolve() == EXAMPLES / name / "Dockerfile"
        assert f"{each['command']} --admin" in script
        build_node_parser().parse_args(each["command"].split()[1:])
    for each in services.values():
        check({variable: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for variable, value in each.get("environment", {}).items()})
