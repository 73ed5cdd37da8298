"""`Intake` in Redis: a fetch is one script; who finds nothing is listed by it, and waits for a message on its own channel.

So nothing is taken by a connection that nobody reads any more, a wait can be interrupted on this side alone, and a consumer that
waits asks the server for nothing. See docs/decisions/0011-consumers-of-redis-are-woken-by-name.md.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

from stem_actors.adapters.redis.connection import Call, Script, Server
from stem_actors.adapters.redis.entries import handout
from stem_actors.adapters.redis.keys import Keys
from stem_actors.errors import StemError
from stem_actors.model.delivery import Handout
from stem_actors.model.lapse import LOWEST_FIRST_EVERY

__all__ = ["RedisIntake"]

MOST_AT_ONCE = 1000
LOOK_EVERY = 5.0
"""Seconds between two looks of one who waits: the server may have forgotten that it waits, or lost its subscription."""
REGISTER_EVERY = 30.0
"""Seconds between two times in which a consumer sees to it that its queues are swept."""


class RedisIntake:
    """Receives from some queues for one holder. `receive` is for one thread, `interrupt` for any.

    Of several queues that hold work each gets an equal share of a fetch, in an order that rotates from fetch to fetch; what
    one cannot use goes to the others. Priority holds inside a queue, and orders what one fetch returns.
    """

    def __init__(self, server: Server, namespace: str, queues: Sequence[str], holder: str, visibility: float) -> None:
        self._server = server
        self._keys = Keys(namespace)
        self._queues = list(dict.fromkeys(queues))
        self._names = {self._keys.queue(name).encode(): name for name in self._queues}
        self._holder = holder
        self._visibility = visibility
        self._channel = f"{namespace}:wake:{uuid.uuid4().hex}"
        self._listener = server.listen()
        self._generation = 0
        self._listed: set[str] = set()
        self._quiet_until = float("-inf")
        self._registered_at = float("-inf")
        self._fetches = 0
        self._next_due: float | None = None
        self._receiving = threading.Lock()
        self._is_closed = False

    def receive(self, limit: int, wait: float) -> list[Handout]:
        clock = self._server.clock
        deadline = clock.monotonic() + wait
        is_over = wait <= 0
        with self._receiving:
            while not self._is_closed:
                if wait <= 0 or not self._is_quiet(limit):
                    handouts = self._fetch(limit, will_wait=wait > 0)
                    if handouts:
                        return handouts
                if is_over or self._listener.interrupts.take():
                    return []
                left = deadline - clock.monotonic()
                patience = left if limit <= 0 else min(left, self._quiet_until - time.monotonic())
                if patience <= 0 < left:
                    continue
                is_over = not self._listener.wait(patience) and left <= patience
        return []

    def interrupt(self) -> None:
        self._listener.interrupts.send()

    def close(self) -> None:
        self._is_closed = True
        self._listener.interrupts.send()
        with self._receiving:  # the other thread is on its way out
            self._listener.close()
            try:
                self._leave()
            except StemError:
                pass  # the server finds out when it next wakes this consumer

    # ------------------------------------------------------------ waiting

    def _is_quiet(self, limit: int) -> bool:
        """Whether a fetch would find nothing: it did a moment ago, and nobody has woken this consumer since."""
        if self._generation == 0:
            self._listener.subscribe([self._channel])
        else:
            self._listener.wait(0)
        heard = self._listener.take_heard()
        self._listed.difference_update(self._names[queue] for queue in heard if queue in self._names)
        if heard or self._generation != self._listener.generation:
            self._generation = self._listener.generation
            self._quiet_until = float("-inf")
        return limit <= 0 or time.monotonic() < self._quiet_until

    def _now_quiet(self, due: float | None) -> None:
        """A fetch found nothing, and whoever has something for these queues will say so."""
        self._listed.update(self._queues)
        self._quiet_until = time.monotonic() + (LOOK_EVERY if due is None else min(LOOK_EVERY, due))

    def _leave(self) -> None:
        """Be listed no longer, so that what comes next wakes a consumer that waits."""
        listed, self._listed = self._listed, set()
        if listed:
            script = Script.named("leave")
            self._server.run_all([Call(script, [self._keys.meta(queue)], [self._channel]) for queue in listed])

    # ------------------------------------------------------------ one fetch

    def _fetch(self, limit: int, will_wait: bool) -> list[Handout]:
        if limit <= 0:
            return []
        self._register()
        asked_at = self._server.clock.monotonic()
        self._quiet_until = float("-inf")
        handouts = (
            self._fetch_one(limit, will_wait, asked_at)
            if len(self._queues) == 1
            else self._fetch_many(limit, will_wait, asked_at)
        )
        if handouts:
            self._fetches += 1
            self._leave()
        return handouts

    def _register(self) -> None:
        """Only queues that are listed are swept."""
        now = time.monotonic()
        if now - self._registered_at >= REGISTER_EVERY:
            self._server.run(Script.named("register"), [self._keys.queues], self._queues)
            self._registered_at = now

    def _fetch_one(self, limit: int, will_wait: bool, asked_at: float) -> list[Handout]:
        queue = self._queues[0]
        due, _, *lanes = self._server.run(*self._call(queue, limit, self._is_lowest_first, will_wait))
        handouts = [each for _, each in self._handouts(queue, lanes, asked_at)]
        if not handouts and will_wait:
            self._now_quiet(None if due < 0 else due / 1000)
        return handouts

    def _fetch_many(self, limit: int, will_wait: bool, asked_at: float) -> list[Handout]:
        looks = self._server.run_all([self._look(queue) for queue in self._queues])
        ready = {queue: count for queue, (count, _) in zip(self._queues, looks, strict=True) if count > 0}
        if not ready:
            if will_wait:
                self._wait_for_any()
            return []
        calls = self._shares(ready, limit)
        answers = self._server.run_all([self._call(queue, share, lowest) for queue, share, lowest in calls])
        found = [
            pair
            for (queue, _, _), (_, _, *lanes) in zip(calls, answers, strict=True)
            for pair in self._handouts(queue, lanes, asked_at)
        ]
        if not self._is_lowest_first:
            found.sort(key=_level_of, reverse=True)
        return [each for _, each in found]

    def _wait_for_any(self) -> None:
        """Be listed in every queue, unless there is something in one by now."""
        looks = self._server.run_all([self._look(queue, self._channel) for queue in self._queues])
        if not any(count for count, _ in looks):
            self._now_quiet(min((due / 1000 for _, due in looks if due >= 0), default=None))
        else:
            self._listed.update(queue for queue, (count, _) in zip(self._queues, looks, strict=True) if not count)

    def _shares(self, ready: dict[str, int], limit: int) -> list[tuple[str, int, bool]]:
        """What to ask of which queue."""
        queues = list(ready)
        turn = (self._fetches + 1) % len(queues)
        calls, unsated = [], []
        left = limit
        for position, queue in enumerate(queues[turn:] + queues[:turn]):
            share = min(-(-left // (len(queues) - position)), ready[queue])
            if share < ready[queue]:
                unsated.append((queue, ready[queue] - share))
            if share > 0:
                calls.append((queue, share, self._is_lowest_first))
            left -= share
        for queue, more in unsated:
            if left > 0:
                calls.append((queue, min(left, more), False))
                left -= min(left, more)
        return calls

    @property
    def _is_lowest_first(self) -> bool:
        return (self._fetches + 1) % LOWEST_FIRST_EVERY == 0

    def _look(self, queue: str, channel: str = "") -> Call:
        return Call(Script.named("look"), [self._keys.meta(queue)], [self._server.given, channel])

    def _call(self, queue: str, limit: int, lowest_first: bool, will_wait: bool = False) -> Call:
        channel = self._channel if will_wait else ""
        arguments = [self._server.given, self._holder, min(limit, MOST_AT_ONCE), 1 if lowest_first else 0, channel]
        return Call(Script.named("fetch"), [self._keys.meta(queue)], arguments)

    def _handouts(self, queue: str, lanes: list[Any], asked_at: float) -> list[tuple[str, Handout]]:
        """Each with its lane."""
        found = []
        for lane, entries in zip(lanes[::2], lanes[1::2], strict=True):
            name = lane.decode()
            found += [
                (name, handout(queue, name, entry_id, fields, self._holder, self._visibility, asked_at))
                for entry_id, fields in entries
            ]
        return found


def _level_of(pair: tuple[str, Handout]) -> str:
    return pair[0][1]
