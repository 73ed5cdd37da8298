"""`stem-node` as a child of the demo: started, asked over its admin HTTP, told to leave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

__all__ = ["PROGRAMS", "Node", "Worker"]

PROGRAMS = Path(sysconfig.get_path("scripts"))
"""Where `stem-node` and `stem` were installed, whether or not that is on the path."""

_HERE = Path(__file__).parent
_LEAVES_WITHIN = 20.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process as it described itself at `reported_at` (seconds since the epoch), which it does each second."""

    id: str
    pid: int
    is_ready: bool
    executors: frozenset[int]
    reported_at: float


class Node:
    """A node of two workers with two executors each, in a process group of its own: Ctrl-C is for the demo."""

    def __init__(self, broker: str, log: Path, environment: Mapping[str, str]) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        self.log = log
        self.command: Sequence[str] = (
            *("stem-node", "--app", "tasks:app", "--broker", broker, "--name", "demo", "--workers", "2", "--concurrency", "2"),
            *("--visibility-timeout", "3s", "--enable-chaos", "--admin", self.address),
        )
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(PROGRAMS / self.command[0]), *self.command[1:], "--log-format", "plain"],
                cwd=_HERE,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    def workers(self) -> list[Worker]:
        """Its workers, from `/status`; none while it starts."""
        snapshots = json.loads(self._get("/status") or "[]")
        return [
            Worker(
                each["workerId"],
                each["extras"]["pid"],
                each["extras"]["state"] == "ready",
                frozenset(executor["pid"] for executor in each["extras"]["executors"]),
                datetime.fromisoformat(each["timestamp"]).timestamp(),
            )
            for each in snapshots
            if each
        ]

    def wait_for_reports(self, timeout: float) -> None:
        """Wait until every worker has reported all that it knows at this moment, or `timeout` seconds."""
        now = time.time()
        while time.time() < now + timeout and any(worker.reported_at < now for worker in self.workers()):
            time.sleep(0.1)

    def metrics(self) -> list[Sample]:
        """What `/metrics` shows: each sample has a name, labels and a value."""
        return [sample for family in text_string_to_metric_families(self._get("/metrics")) for sample in family.samples]

    def redeliveries(self) -> Counter[str]:
        """Deliveries handed out again, by cause."""
        causes: Counter[str] = Counter()
        for sample in self.metrics():
            if sample.name == "stem_redeliveries_total":
                causes[sample.labels["cause"]] += round(sample.value)
        return causes

    def leave(self) -> int:
        """Send SIGTERM, as an init system would, and wait; its exit code. One that does not leave is killed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_LEAVES_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def _get(self, page: str) -> str:
        """A page, or nothing while the node does not serve."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{page}", timeout=2.0) as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            return ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
