"""A worker leaves at a random moment: in every mode, asked in every way, under every kind of task, while another worker waits.

Whatever the moment: it is gone in time, with exit code 0; what it ran and did not end begins again elsewhere within two seconds;
and every task ends exactly once, well, and charged for nothing (`STEM_MAX_DELIVERIES=1`: a charge would be a dead letter). The
default run tries one moment of each mode, a soak `STEM_MATRIX_MOMENTS` (20) of each combination, from the seed that it prints
or finds in `STEM_MATRIX_SEED`.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stem_actors import Handle, Settings, Stem, TaskState
from tests.fixtures.node import Place, RunningNode, eventually, is_alive
from tests.fixtures.redis_server import new_namespace, shared_url

DRAIN, GRACE = 1.0, 1.0  # seconds
MARGIN = 2.0
HEARD = 0.5
"""Seconds until the order to leave has reached whoever hands tasks out: what begins until then is interrupted as well."""
MODES = ("warm", "soft", "hard")
KINDS = ("stream", "asleep", "computing", "async", "threaded", "deaf")
HOWS = ("process", "group", "command", "node")
STREAM, HELD = 300, 6  # tasks
ALLOWED = {"warm": DRAIN + GRACE, "soft": GRACE, "hard": 0.0}
LADDERS: dict[str, list[tuple[signal.Signals, ...]]] = {
    "warm": [(signal.SIGTERM,), (signal.SIGINT,)],
    "soft": [(signal.SIGINT, signal.SIGINT)],
    "hard": [(signal.SIGQUIT,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGQUIT)],
}
GATED = """
import pathlib, time
while not pathlib.Path("taker-may-start").exists():
    time.sleep(0.01)
from tests.fixtures.matrix_app import app
"""


@dataclass(frozen=True)
class Run:
    """One run of a task, as the task wrote it down."""

    pid: int
    started_at: float
    ended_at: float | None = None


@dataclass
class Moment:
    """One worker that leaves, one that waits, and the tasks between them."""

    place: Place
    chance: random.Random
    mode: str
    kind: str
    how: str
    tasks: dict[str, Handle[Any]] = field(default_factory=dict)

    @property
    def journal(self) -> Path:
        return self.place.directory / "journal"

    def gate(self, word: str) -> Path:
        return self.place.directory / f"gate-{word}"

    # ------------------------------------------------------------ what happens

    def pass_by(self) -> None:
        """Let all of it happen, and judge."""
        self.journal.touch()
        (self.place.directory / "gated.py").write_text(GATED)
        leaver = self._start("tests.fixtures.matrix_app", "2", *(("--threads", "3") if self.kind == "threaded" else ()))
        taker = self._start("gated", "1", "--threads", "8")  # room for all, so that nothing has to wait there
        leaver.wait_ready()
        eventually(lambda: "no executor is ready" in taker.get("/readyz")[2], hint="a worker that is all but ready")
        pid = leaver.worker()
        self._enqueue()
        eventually(lambda: len(self._runs()) >= 2, hint="two runs")
        time.sleep(self.chance.uniform(0.0, 0.3))  # the moment is what is tried out, not waited for
        (self.place.directory / "taker-may-start").touch()
        asked_at = self._ask(leaver, pid)
        opens_at = [asked_at + self.chance.uniform(0.0, 0.8) for word in self.tasks if hash_of(word) % 3 == 0]
        self._await_end(leaver, pid, asked_at, opens_at)
        for word in self.tasks:
            self.gate(word).touch()
        self._judge(asked_at, leaver)

    def _start(self, app: str, concurrency: str, *more: str) -> RunningNode:
        words = ("--visibility-timeout", "60s", "--drain-timeout", f"{DRAIN:g}s", "--concurrency", concurrency)
        return self.place.start(*words, *more, app=app, is_ready=False)

    def _enqueue(self) -> None:
        app, journal = self.place.app, str(self.journal)
        if self.kind == "stream":
            for number in range(STREAM):
                name = "aquick" if number % 2 else "quick"
                self.tasks[f"t{number}"] = app.enqueue_by_name(name, [journal, f"t{number}", 0.002])
            return
        how = {"computing": "spin", "deaf": "deaf"}.get(self.kind, "sleep")
        for number in range(HELD):
            word = f"t{number}"
            name = "awork" if self.kind == "async" else "work"
            self.tasks[word] = app.enqueue_by_name(name, [journal, word, how, str(self.gate(word))])

    def _ask(self, leaver: RunningNode, pid: int) -> float:
        """Have it leave; when that was."""
        if self.how == "command":
            self.place.shell.out("stem", "worker", "shutdown", "--worker", f"{leaver.name}-1", "--mode", self.mode, "--json")
            return time.time()
        ladder, asked_at = self.chance.choice(LADDERS[self.mode]), time.time()
        for step, number in enumerate(ladder, 1):
            asked_at = time.time()
            match self.how:
                case "process":
                    os.kill(pid, number)
                case "group":
                    leaver.send_group(number)
                case _:
                    leaver.send(number)
            if step < len(ladder):  # two signals at once may arrive as one
                who = f"{leaver.name}-1 leaves" if self.how == "process" else f"node {leaver.name} leaves"
                eventually(lambda: who in leaver.log, hint="its leaving")  # noqa: B023
        return asked_at

    def _await_end(self, leaver: RunningNode, pid: int, asked_at: float, opens_at: list[float]) -> None:
        """Wait until it is gone, while some of the tasks come to their end."""
        words = [word for word in self.tasks if hash_of(word) % 3 == 0]
        by = asked_at + ALLOWED[self.mode] + MARGIN
        watched = leaver.process.pid if self.how in ("node", "group") else pid
        while is_alive(watched):
            assert time.time() < by, f"it has not left after {by - asked_at:g} s: {leaver.log[-2000:]}"
            for word, at in zip(words, opens_at, strict=True):
                if at <= time.time():
                    self.gate(word).touch()
            time.sleep(0.01)
        if self.how in ("node", "group"):
            assert leaver.process.wait(1) == 0, leaver.log[-2000:]
            assert leaver.everything() == set()
        else:
            eventually(lambda: leaver.metric("stem_actor_restarts_total", actor="worker") == 1, hint="its successor")
            assert leaver.metric("stem_actor_restarts_total", actor="worker", reason="normal") == 1, leaver.log[-2000:]

    # ------------------------------------------------------------ what must hold

    def _judge(self, asked_at: float, leaver: RunningNode) -> None:
        for word, handle in self.tasks.items():
            assert handle.get(20) == word
        runs = self._runs()
        for word, handle in self.tasks.items():
            record = handle.status()
            assert (record.state, record.attempt) == (TaskState.SUCCEEDED, 0)
            self._judge_runs(word, runs[word], asked_at)
        print(f"{sum(len(each) > 1 for each in runs.values())} of {len(runs)} tasks were interrupted and ran again", flush=True)
        broker = self.place.app.stores.broker
        eventually(
            lambda: [each for each in broker.depths() if each.pending + each.inflight + each.delayed + each.dead] == [],
            hint=f"an empty queue, but {broker.depths()}",
        )
        assert "Traceback" not in leaver.log

    def _judge_runs(self, word: str, runs: list[Run], asked_at: float) -> None:
        """It ran again only where it had been interrupted, and then soon."""
        interrupted_at = asked_at + (DRAIN if self.mode == "warm" else 0.0)
        if self.kind == "deaf" and self.mode != "hard":
            interrupted_at += GRACE
        if runs[0].started_at > asked_at + MARGIN:
            raise AssertionError(f"{word} was not handed over within {runs[0].started_at - asked_at:.2f} s")
        for earlier, later in pairwise(runs):
            assert earlier.started_at <= interrupted_at + HEARD, f"{word} ran again though nobody had interrupted it: {runs}"
            late = later.started_at - max(interrupted_at, earlier.started_at)
            assert late <= MARGIN, f"{word} began again only {late:.2f} s after it had been interrupted: {runs}"
            if self.mode == "warm" and self.kind == "stream":
                raise AssertionError(f"{word} would have ended by itself, and ran twice: {runs}")

    def _runs(self) -> dict[str, list[Run]]:
        runs: dict[str, list[Run]] = defaultdict(list)
        for line in self.journal.read_text().splitlines():
            what, pid, at = line.split()
            word, _, event = what.rpartition("-")
            if event == "starts":
                runs[word].append(Run(int(pid), float(at)))
            else:
                (mine,) = [each for each in runs[word] if each.pid == int(pid) and each.ended_at is None]
                runs[word][runs[word].index(mine)] = Run(mine.pid, mine.started_at, float(at))
        return runs


def hash_of(word: str) -> int:
    """The number in a task's word."""
    return int(word[1:])


@contextmanager
def a_place(folder: Path, kind: str) -> Iterator[Place]:
    folder.mkdir()
    environ = {"STEM_SOFT_GRACE_PERIOD": f"{GRACE:g}s", "STEM_MAX_DELIVERIES": "1"}
    with closing(Place(folder, environ)) as place:
        if kind == "redis":
            place.app.close()
            place.url, namespace = shared_url(), new_namespace()
            place.app = Stem(settings=Settings(broker_url=place.url, namespace=namespace))
            environ["STEM_NAMESPACE"] = namespace
        environ["STEM_BROKER_URL"] = place.url
        yield place


def try_moment(folder: Path, broker: str, mode: str, kind: str, how: str, seed: str) -> None:
    with a_place(folder, broker) as place:
        Moment(place, random.Random(seed), mode, kind, how).pass_by()


@pytest.mark.parametrize(
    ("mode", "kind", "how", "broker"),
    [("warm", "async", "group", "sqlite"), ("soft", "deaf", "node", "redis"), ("hard", "stream", "command", "sqlite")],
)
def test_nothing_is_lost_when_a_worker_leaves(mode: str, kind: str, how: str, broker: str, tmp_path: Path) -> None:
    try_moment(tmp_path / "place", broker, mode, kind, how, "default")


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_lost_at_any_moment(mode: str, kind: str, how: str, tmp_path: Path) -> None:
    seed = os.environ.get("STEM_MATRIX_SEED") or str(random.SystemRandom().randrange(1_000_000))
    moments = int(os.environ.get("STEM_MATRIX_MOMENTS", "20"))
    for number in range(moments):
        broker = ("sqlite", "redis")[number % 2]
        print(f"{mode}, {kind}, {how}: moment {number} of seed {seed}, on {broker}", flush=True)
        try_moment(tmp_path / str(number), broker, mode, kind, how, f"{seed} {number}")
