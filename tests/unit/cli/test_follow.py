from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from stem_actors.errors import BrokerUnavailable
from stem_actors.testing import ManualClock
from stem_cli.exit_codes import ExitCode
from stem_cli.follow import Follower, Lines
from stem_cli.heartbeats import Beat
from stem_cli.output import Output

START = 1_700_000_000.0


def beat(worker: str, sent: float, now: float = START, interval_ms: int | None = None, expected: float | None = None) -> Beat:
    extras = {} if interval_ms is None else {"heartbeatIntervalMs": interval_ms}
    return Beat.read({"worker_id": worker, "timestamp": round(sent * 1000), "extras": extras}, now, expected, 10.0)


@pytest.mark.parametrize(
    ("age", "interval_ms", "expected", "is_stale"),
    [
        (10.5, None, None, False),
        (12, None, None, True),
        (12, 60_000, None, False),
        (12, 60_000, 5.0, True),
        (12, 1000, 20.0, False),
        (1e6, None, 0.0, False),
        (1e6, 0, None, False),
    ],
)
def test_a_heartbeat_is_stale_by_what_was_said_or_its_workers_own_interval(
    age: float, interval_ms: int | None, expected: float | None, is_stale: bool
) -> None:
    assert beat("w", START - age, interval_ms=interval_ms, expected=expected).is_stale is is_stale


class Stage:
    """Reads that are played one after the other, the last one for ever; half a second apart."""

    def __init__(self, *reads: Sequence[Beat] | BrokerUnavailable) -> None:
        self.clock = ManualClock(START)
        self.shown: list[list[str]] = []
        self.said: list[str | None] = []
        self._reads = list(reads)

    def read(self) -> Sequence[Beat]:
        found = self._reads.pop(0) if len(self._reads) > 1 else self._reads[0]
        if isinstance(found, BrokerUnavailable):
            raise found
        return found

    def show(self, beats: Sequence[Beat]) -> None:
        self.shown.append([beat.worker_id for beat in beats])

    def say(self, text: str | None) -> None:
        self.said.append(text)

    def follow(self, timeout: float, pause: Callable[[float], None] | None = None) -> ExitCode:
        return Follower(self.read, self, timeout, self.clock, pause or self.clock.advance).run()


def test_following_ends_when_no_new_heartbeat_came_in_time() -> None:
    old, new = beat("w", START - 5), beat("w", START)
    stage = Stage([old], [old], [new])
    assert stage.follow(2.0) is ExitCode.NOTHING
    assert stage.clock.now() - START == 1.0 + 2.0
    assert stage.said[-1] == "no heartbeat within 2s"


def test_a_store_that_is_away_is_asked_again_and_again() -> None:
    stage = Stage([beat("w", START)], BrokerUnavailable("locked"), [beat("w", START + 1)])
    assert stage.follow(1.0) is ExitCode.NOTHING
    assert any("locked" in (text or "") for text in stage.said)
    assert stage.shown[-1] == ["w"]


def test_a_store_that_stays_away_is_a_failure() -> None:
    assert Stage(BrokerUnavailable("away")).follow(2.0) is ExitCode.FAILED


def test_without_a_timeout_following_goes_on_for_ever() -> None:
    left = [100]

    def pause(_seconds: float) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stage([]).follow(0.0, pause)


def test_a_pipe_gets_a_line_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(Output())
    fresh = beat("w", START)
    for now in (START, START + 5, START + 12, START + 13):
        lines.show([beat("w", START, now)])
    lines.show([fresh, beat("x", START)])
    lines.show([beat("x", START)])
    printed = capsys.readouterr()
    assert [line.split()[1] for line in printed.out.splitlines()] == ["w", "w", "w", "x"]
    assert ["stale" in line for line in printed.out.splitlines()] == [False, True, False, False]
    assert printed.err.startswith("worker w has left")


def test_a_hindrance_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(Output())
    for text in ("away", "away", None, "away"):
        lines.say(text)
    assert capsys.readouterr().err == "away\naway\n"
