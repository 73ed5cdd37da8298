"""The examples with an HTTP API, each started as its README says."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from stem_actors import Settings, Stem, TaskState
from stem_actors.config import SETTINGS, resolve
from stem_chaos.link import free_port
from tests.fixtures.certificates import Authority
from tests.fixtures.node import eventually, is_alive
from tests.fixtures.redis_server import need_server

EXAMPLES = Path(__file__).parents[2] / "examples"
STEM_NODE = Path(sys.executable).with_name("stem-node")

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytestmark = [
    pytest.mark.skipif(not STEM_NODE.exists(), reason="stem-node is not installed beside this Python: make venv"),
    pytest.mark.xdist_group("examples"),
]


@dataclass
class Service:
    """An example and everything it has started, on a port of its own."""

    folder: Path
    environ: dict[str, str]
    log_file: Path
    port: int = field(default_factory=free_port)
    scheme: str = "http"
    trusts: ssl.SSLContext | None = None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("STEM_", "ENQUEUER_"))}
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env={**inherited, **self.environ, "PORT": str(self.port), "STEM_TEST_MARK": self.mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(f"{self.scheme}://localhost:{self.port}{path}", data=body)
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.trusts) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def answers(self) -> bool:
        assert self.processes[0].poll() is None, self.log
        try:
            return self.ask("/status/unknown")[0] == 200
        except OSError:
            return False

    def wait_until_up(self) -> None:
        eventually(self.answers, 20, "the service does not answer")

    def enqueue(self, **body: Any) -> str:
        code, answer = self.ask("/enqueue", json.dumps(body).encode())
        assert code == 200, answer
        task_id: str = answer["taskId"]
        return task_id

    def wait_for(self, task_id: str, state: str, timeout: float = 20) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            answer = self.ask(f"/status/{task_id}")[1]
            return answer if answer["state"] == state else None

        return eventually(reached, timeout, f"task {task_id} is not {state}; {self.ask(f'/status/{task_id}')}") or {}

    def everything(self) -> set[int]:
        """The pids of whatever it has started and is alive. Redis writes over its environment: it counts while it is a child."""
        mark = f"STEM_TEST_MARK={self.mark}".encode()
        found = {process.pid for process in self.processes if is_alive(process.pid)}
        for pid in list(found):
            with suppress(psutil.NoSuchProcess):
                found |= {child.pid for child in psutil.Process(pid).children(recursive=True) if is_alive(child.pid)}
        for pid in psutil.pids():
            with suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes() and is_alive(pid):
                    found.add(pid)
        return found

    def close(self) -> None:
        for pid in self.everything():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()


# ---------------------------------------------------------------- monolith_service


@pytest.fixture(params=["memory", "sqlite"])
def monolith(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/monolith.db"
    service = Service(EXAMPLES / "monolith_service", {"PYTHON": sys.executable, "STEM_BROKER_URL": url}, tmp_path / "log")
    try:
        service.start("./run")
        service.wait_until_up()
        yield service
    finally:
        service.close()


def test_monolith_runs_what_is_enqueued_refuses_what_has_no_name_and_drains_on_ctrl_c(monolith: Service) -> None:
    task_id = monolith.enqueue(name="Ada")
    assert monolith.wait_for(task_id, "succeeded")["result"] == "Hello Ada (attempt 0)"
    for body in (b"{}", b'{"name": " "}', b'{"name": 7}', b'["name"]', b"no JSON", b"\xff"):
        assert monolith.ask("/enqueue", body)[0] == 400, body
    assert monolith.ask("/status/not%20an%20id")[0] == 400

    first, _, third = [monolith.enqueue(name=f"number-{number}") for number in range(3)]
    monolith.wait_for(first, "succeeded")  # of two executors one has the third now
    os.killpg(monolith.processes[0].pid, signal.SIGINT)
    assert monolith.processes[0].wait(15) == 0, monolith.log
    url = monolith.environ["STEM_BROKER_URL"]
    if url.startswith("sqlite"):
        with Stem(settings=Settings(broker_url=url)) as app:
            assert app.handle(third).status().state is TaskState.SUCCEEDED, monolith.log
    assert "monolith: drained" in monolith.log
    assert "Traceback" not in monolith.log
    eventually(lambda: not monolith.everything(), 5, "something is left running")


# ---------------------------------------------------------------- microservice


@pytest.fixture
def microservice(tmp_path: Path) -> Iterator[Service]:
    need_server()
    environ = {
        "REDIS_PORT": str(free_port()),
        "DATA_DIR": str(tmp_path / "redis"),
        "QUEUES": "greetings",
        "CONCURRENCY": "1",
        "ENQUEUER_AUTOFILL_ENABLED": "false",
        "STEM_VISIBILITY_TIMEOUT": "2s",
    }
    service = Service(EXAMPLES / "microservice", environ, tmp_path / "log")
    try:
        yield service
    finally:
        service.close()


def test_a_task_whose_worker_is_killed_is_finished_by_another(microservice: Service) -> None:
    whole = microservice.start(sys.executable, "run.py")
    microservice.wait_until_up()
    code, health = microservice.ask("/healthz")
    assert (code, health["status"]) == (200, "ok")
    for body in (b"{}", b"no JSON", b'{"name": "Ada", "task": "no.such"}', b'{"name": "Ada", "delayMs": -1}'):
        assert microservice.ask("/enqueue", body)[0] == 400, body

    slow = microservice.enqueue(name="Ada", delayMs=2500)
    first = microservice.wait_for(slow, "running")
    assert first["meta"]["worker"].startswith("microservice-worker-1")
    extra = microservice.start(sys.executable, "run.py", "worker", "greetings")
    (node,) = [each for each in psutil.Process(whole.pid).children() if "microservice-worker-1" in each.cmdline()]
    for process in [node, *node.children(recursive=True)]:
        process.kill()

    done = microservice.wait_for(slow, "succeeded")
    assert done["result"]["done"] == "greeting for Ada"
    assert done["meta"]["worker"].startswith(f"microservice-extra-{extra.pid}")
    assert "run: microservice-worker-1 ended with -9" in microservice.log

    extra.terminate()
    assert extra.wait(15) == 0
    whole.send_signal(signal.SIGINT)
    assert whole.wait(15) == 0, microservice.log
    assert "Traceback" not in microservice.log
    eventually(lambda: not microservice.everything(), 5, "something is left running")


def test_the_api_speaks_https_to_clients_with_a_certificate_only(microservice: Service, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    cert, key = authority.issue("enqueuer", "DNS:localhost")
    microservice.environ |= {
        "QUEUES": " ",
        "ENQUEUER_TLS_CERT": str(cert),
        "ENQUEUER_TLS_KEY": str(key),
        "ENQUEUER_TLS_CLIENT_CA": str(authority.cert),
    }
    microservice.scheme = "https"
    microservice.trusts = ssl.create_default_context(cafile=str(authority.cert))
    microservice.trusts.load_cert_chain(*authority.issue("client", "DNS:client"))
    microservice.start(sys.executable, "run.py")
    microservice.wait_until_up()
    task_id = microservice.enqueue(name="Ada")
    assert microservice.ask(f"/status/{task_id}")[1]["state"] == "queued"

    microservice.trusts = ssl.create_default_context(cafile=str(authority.cert))
    with pytest.raises((OSError, ssl.SSLError)):
        microservice.ask(f"/status/{task_id}")


def test_a_certificate_without_its_key_is_said_at_start(microservice: Service) -> None:
    microservice.environ |= {"QUEUES": " ", "ENQUEUER_TLS_CERT": "/somewhere/server.crt"}
    assert microservice.start(sys.executable, "run.py").wait(20) == 64
    assert "ENQUEUER_TLS_CERT and ENQUEUER_TLS_KEY belong together" in microservice.log


# ---------------------------------------------------------------- their settings


@pytest.mark.parametrize("name", ["monolith_service", "microservice"])
def test_example_settings_are_settings(name: str) -> None:
    lines = (EXAMPLES / name / ".env.example").read_text().splitlines()
    given = {variable: value for variable, _, value in (line.partition("=") for line in lines if line and line[0] != "#")}
    ours = {variable for variable in given if variable.startswith("STEM_")}
    assert ours - {setting.variable for setting in SETTINGS} == set()
    resolve({}, given)
