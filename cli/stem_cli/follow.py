"""`stem worker status --follow`: heartbeats as they come, until none came for a while.

The store is looked into twice a second: that costs it less than a heartbeat does, and it goes on working when a store was away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from stem_actors.clock import Clock
from stem_actors.errors import BrokerUnavailable
from stem_cli.exit_codes import ExitCode
from stem_cli.heartbeats import Beat
from stem_cli.output import Output, Screen, readable_duration

__all__ = ["Follower", "Lines", "LiveTable", "View"]

_EVERY = 0.5


class View(Protocol):
    """Where heartbeats are shown."""

    def show(self, beats: Sequence[Beat]) -> None:
        """All there are now."""
        ...

    def say(self, text: str | None) -> None:
        """What hinders; None: nothing any more."""
        ...


class Follower:
    """Reads and shows heartbeats. `timeout` 0: for ever."""

    def __init__(
        self, read: Callable[[], Sequence[Beat]], view: View, timeout: float, clock: Clock, pause: Callable[[float], None]
    ) -> None:
        self._read = read
        self._view = view
        self._timeout = timeout
        self._clock = clock
        self._pause = pause

    def run(self) -> ExitCode:
        """Until no heartbeat came for `timeout` seconds: `NOTHING`, or `FAILED` when the store was away then."""
        sent = self._look()
        heard_at = self._clock.monotonic()
        while True:
            self._pause(_EVERY)
            now_sent = self._look()
            if now_sent is not None and sent is not None and now_sent - sent:
                heard_at = self._clock.monotonic()
            sent = sent if now_sent is None else now_sent
            if self._timeout and self._clock.monotonic() - heard_at >= self._timeout:
                self._view.say(f"no heartbeat within {readable_duration(self._timeout)}")
                return ExitCode.FAILED if now_sent is None else ExitCode.NOTHING

    def _look(self) -> set[tuple[str, float | None]] | None:
        """Show what there is; returns who sent when, None when the store is away."""
        try:
            beats = self._read()
        except BrokerUnavailable as error:
            self._view.say(f"the store does not answer, trying again: {error}")
            return None
        self._view.say(None)
        self._view.show(beats)
        return {(beat.worker_id, beat.sent_at) for beat in beats}


class Lines:
    """For pipes: each heartbeat once, and once more when it has become stale; as text, or one JSON object a line."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._shown: dict[str, tuple[float | None, bool]] = {}
        self._said: str | None = None

    def show(self, beats: Sequence[Beat]) -> None:
        for beat in beats:
            if self._shown.get(beat.worker_id) == (beat.sent_at, beat.is_stale):
                continue
            self._shown[beat.worker_id] = (beat.sent_at, beat.is_stale)
            if self._output.as_json:
                self._output.json_line(beat.as_json())
            else:
                self._output.line(beat.lines()[0] + (f" state={beat.state}" if beat.state else ""))
        for gone in self._shown.keys() - {beat.worker_id for beat in beats}:
            del self._shown[gone]
            self._output.message(f"worker {gone} has left, or was not heard for so long that it is forgotten")

    def say(self, text: str | None) -> None:
        if text is not None and text != self._said:
            self._output.message(text)
        self._said = text


class LiveTable:
    """For terminals: one table, drawn anew in place."""

    COLUMNS = ("Worker", "State", "Running", "In flight", "Done", "Queues", "Last heartbeat")

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._beats: Sequence[Beat] = ()
        self._hindrance: str | None = None

    def show(self, beats: Sequence[Beat]) -> None:
        self._beats = beats
        self._draw()

    def say(self, text: str | None) -> None:
        if text != self._hindrance:
            self._hindrance = text
            self._draw()

    def _draw(self) -> None:
        notes = [self._hindrance] if self._hindrance else [] if self._beats else ["no worker has sent a heartbeat lately"]
        title = f"{len(self._beats)} worker{'' if len(self._beats) == 1 else 's'} (Ctrl-C ends this)"
        self._screen.table(title, self.COLUMNS, [self._row(beat) for beat in self._beats], notes)

    def _row(self, beat: Beat) -> tuple[object, ...]:
        concurrency = beat.extras.get("concurrency")
        running = f"{beat.document.get('isolateCount', 0)}" + (f" / {concurrency}" if concurrency else "")
        age = f"{readable_duration(beat.age)} ago" + (", stale" if beat.is_stale else "")
        inflight, done = beat.document.get("inflight", 0), beat.extras.get("completed")
        return (beat.worker_id, beat.state, running, inflight, done, beat.queues, age)
