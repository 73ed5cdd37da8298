"""The control bus in Postgres. A cursor is the number of the last message seen.

Who sends takes a turn, so that numbers grow as they appear.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stem_actors.adapters.postgres.connection import Database, Row
from stem_actors.adapters.postgres.hints import Ear
from stem_actors.adapters.postgres.schema import LOCK

__all__ = ["PostgresControl"]

MOST_SEATS = 4

# The number is drawn when it is this sender's turn, which lasts until the message can be seen.
_SEND = f"""
    WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock({LOCK + 1}, %(namespace)s::int), @lazily)
    INSERT INTO @control (namespace, channel, expires_at, message)
    SELECT %(namespace)s::int, %(channel)s::text, @now + %(ttl)s::float8, %(message)s::bytea FROM turn
"""
_LAST = "SELECT coalesce(max(number), 0) FROM @control WHERE namespace = %(namespace)s"
_PULL = """
    SELECT number, message FROM @control
    WHERE namespace = %(namespace)s AND channel = ANY (%(channels)s::text[]) AND number > %(cursor)s::bigint AND expires_at > @now
    ORDER BY number LIMIT %(limit)s
"""


@dataclass(slots=True)
class _Seat:
    """Of one who waits again and again: what he hears, and when he last looked with which cursor, and found nothing."""

    channels: tuple[str, ...]
    ear: Ear
    cursor: Any = None
    looked_at: float = float("-inf")


class PostgresControl:
    """A `ControlBus`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace_name = namespace
        self._lock = threading.Lock()
        self._seats: dict[tuple[str, ...], _Seat] = {}
        self._is_closed = False

    def send(self, channel: str, message: bytes, ttl: float) -> None:
        namespace = self._namespace
        self._database.run(_SEND, {"namespace": namespace, "channel": channel, "message": message, "ttl": ttl})
        self._database.hints.notify([_topic(namespace)])

    def cursor(self, channels: Sequence[str]) -> Any:
        ((number,),) = self._database.read(_LAST, {"namespace": self._namespace})
        return number

    def pull(self, channels: Sequence[str], cursor: Any, limit: int = 100, wait: float = 0.0) -> tuple[list[bytes], Any]:
        if wait <= 0:
            return _page(self._messages(channels, cursor, limit), cursor)
        seat = self._take_seat(tuple(channels))
        try:
            rows = self._await(seat, cursor, limit, wait)
        except BaseException:
            seat.ear.close()
            raise
        self._give_back(seat)
        return _page(rows, cursor)

    def _await(self, seat: _Seat, cursor: Any, limit: int, wait: float) -> list[Row]:
        clock = self._database.clock
        deadline = clock.monotonic() + wait
        is_over = False
        while True:
            age = time.monotonic() - seat.looked_at
            if seat.ear.has_heard or seat.cursor != cursor or age >= self._database.hints.patience:
                seat.ear.forget()
                rows = self._messages(seat.channels, cursor, limit)
                if rows:
                    seat.cursor = None
                    return rows
                seat.cursor, seat.looked_at, age = cursor, time.monotonic(), 0.0
            if is_over:
                return []
            left = deadline - clock.monotonic()
            patience = min(left, self._database.hints.patience - age)
            is_over = not seat.ear.wait(patience) and left <= patience

    def _take_seat(self, channels: tuple[str, ...]) -> _Seat:
        with self._lock:
            seat = self._seats.pop(channels, None)
        return seat or _Seat(channels, self._database.hints.listen([_topic(self._namespace)]))

    def _give_back(self, seat: _Seat) -> None:
        """For the next pull from the same channels; of others only a few are kept."""
        with self._lock:
            gone = [self._seats.pop(seat.channels, None)]
            self._seats[seat.channels] = seat
            while len(self._seats) > (0 if self._is_closed else MOST_SEATS):
                gone.append(self._seats.pop(next(iter(self._seats))))
        for each in gone:
            if each is not None:
                each.ear.close()

    def _messages(self, channels: Sequence[str], cursor: Any, limit: int) -> list[Row]:
        asked = {"namespace": self._namespace, "channels": list(channels), "cursor": cursor, "limit": max(0, limit)}
        return self._database.read(_PULL, asked)

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            seats, self._seats = list(self._seats.values()), {}
        for seat in seats:
            seat.ear.close()
        self._database.detach()

    @property
    def _namespace(self) -> int:
        return self._database.namespace_id(self._namespace_name)


def _topic(namespace: int) -> str:
    return f"c{namespace}"


def _page(rows: Sequence[Row], cursor: Any) -> tuple[list[bytes], Any]:
    return [message for _, message in rows], rows[-1][0] if rows else cursor
