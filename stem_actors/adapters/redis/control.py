"""The control bus in Redis: a stream per channel, and a subscription that tells of new entries.

A cursor is the number of the last message seen; one counter numbers the messages of all channels. Who waits listens, and asks
the server for nothing while nothing comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stem_actors.adapters.redis.connection import Listener, Script, Server
from stem_actors.adapters.redis.keys import Keys

__all__ = ["RedisControl"]

LOOK_EVERY = 10.0  # seconds between two looks of one who listens: what it hears is a hint
SPARE_LISTENERS = 4


@dataclass(slots=True)
class _Ear:
    """A listener and what it knows: after `cursor` there was nothing at `looked_at`, nor was anything heard since."""

    listener: Listener
    cursor: int | None = None
    looked_at: float = float("-inf")
    generation: int = 0


class RedisControl:
    """A `ControlBus`. Any thread."""

    def __init__(self, server: Server, namespace: str) -> None:
        self._server = server.attach()
        self._keys = Keys(namespace)
        self._lock = threading.Lock()
        self._spare: dict[tuple[str, ...], _Ear] = {}
        self._is_closed = False

    def send(self, channel: str, message: bytes, ttl: float) -> None:
        keys = [self._keys.control(channel), self._keys.control_number, self._keys.control_channels]
        self._server.run(Script.named("send"), keys, [self._server.given, round(ttl * 1000), message])

    def cursor(self, channels: Sequence[str]) -> Any:
        return self._last_number()

    def _last_number(self) -> int:
        return _number(self._server.command("GET", self._keys.control_number))

    def pull(self, channels: Sequence[str], cursor: Any, limit: int = 100, wait: float = 0.0) -> tuple[list[bytes], Any]:
        limit = max(0, limit)
        if wait <= 0 or not limit:
            return self._look(channels, cursor, limit)
        streams = tuple(map(self._keys.control, channels))
        with self._lock:
            ear = self._spare.pop(streams, None) or _Ear(self._server.listen())
        try:
            answer = self._listen(ear, streams, channels, cursor, limit, wait)
        except BaseException:
            ear.listener.close()
            raise
        self._keep(streams, ear)
        return answer

    def _listen(
        self, ear: _Ear, streams: Sequence[str], channels: Sequence[str], cursor: int, limit: int, wait: float
    ) -> tuple[list[bytes], Any]:
        clock = self._server.clock
        deadline = clock.monotonic() + wait
        is_over = False
        ear.listener.subscribe(streams)
        while True:
            is_told = ear.listener.wait_or_renew(0) or ear.generation != ear.listener.generation
            ear.listener.take_heard()
            age = time.monotonic() - ear.looked_at
            if is_told or ear.cursor != cursor or age >= LOOK_EVERY:
                ear.generation = ear.listener.generation
                if is_told or ear.cursor != cursor or self._last_number() != cursor:
                    messages, behind = self._look(channels, cursor, limit)
                    if messages or behind < cursor:
                        ear.cursor = None
                        return messages, behind
                    cursor = behind
                ear.cursor, ear.looked_at, age = cursor, time.monotonic(), 0.0
            if is_over:
                return [], cursor
            left = deadline - clock.monotonic()
            patience = min(left, LOOK_EVERY - age)
            is_over = not ear.listener.wait_or_renew(patience) and left <= patience

    def _keep(self, streams: tuple[str, ...], ear: _Ear) -> None:
        """For the next pull from the same channels; of others only a few are kept."""
        with self._lock:
            gone = [] if not self._is_closed else [ear]
            if not self._is_closed:
                gone += [each for each in (self._spare.pop(streams, None),) if each is not None]
                self._spare[streams] = ear
                while len(self._spare) > SPARE_LISTENERS:
                    gone.append(self._spare.pop(next(iter(self._spare))))
        for each in gone:
            each.listener.close()

    def _look(self, channels: Sequence[str], cursor: int, limit: int) -> tuple[list[bytes], int]:
        """What came after `cursor`, and the place behind it: that of the last message, or further on where others' came."""
        streams = list(map(self._keys.control, channels))
        last = f"({cursor}-0"
        raw, *answers = self._server.commands(
            [
                ("GET", self._keys.control_number),  # first: of what is numbered up to here, the rest misses nothing
                *(("XRANGE", stream, last, "+", "COUNT", max(1, limit)) for stream in streams),
            ]
        )
        number = _number(raw)
        if number < cursor and not any(answers):
            return [], 0  # the server has lost its data, and numbers anew
        now = self._server.now()
        newer = sorted((int(entry_id.split(b"-")[0]), fields) for answer in answers for entry_id, fields in answer)
        found = [each for each in newer if number < cursor or each[0] <= number][:limit]
        messages = [fields[3] for _, fields in found if _is_live(fields, now)]
        behind = found[-1][0] if found else cursor
        return messages, behind if len(found) == limit else max(behind, number)

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            ears, self._spare = list(self._spare.values()), {}
        for ear in ears:
            ear.listener.close()
        self._server.detach()


def _number(value: bytes | None) -> int:
    return int(value) if value and value.isdigit() else 0


def _is_live(fields: Sequence[bytes], now: float) -> bool:
    return len(fields) == 4 and fields[1].isdigit() and int(fields[1]) / 1000 > now
