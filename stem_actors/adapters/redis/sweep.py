"""The sweep in Redis: what is due is promoted, lapsed leases come back, and what has had its time is dropped.

One script per queue promotes and finds; what becomes of a lapsed delivery is decided here, by the function that all brokers
share; a second script, only where something lapsed, takes it, after looking again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgpack

from stem_actors.adapters.redis.connection import Call, Script, Server
from stem_actors.adapters.redis.entries import read_entry
from stem_actors.adapters.redis.keys import Keys
from stem_actors.adapters.redis.results import packed_record, read_record
from stem_actors.model.delivery import pack_state
from stem_actors.model.lapse import NAME_KEPT, SENDER_KEPT, Poisoned, Retention, Returned, after_lapse, poison_record
from stem_actors.ports import Swept

__all__ = ["Sweeper"]

PRUNE_INTERVAL = 30.0  # for what nobody waits for
QUEUES_AT_ONCE = 100
LIST_EVERY = 30.0  # seconds for which the list of queues is believed
QUEUE_KEPT = 600.0  # one that holds nothing
CONSUMER_KEPT = 60.0  # one that holds nothing; the server makes it anew when it reads again


class Sweeper:
    """Sweeps one namespace. Any thread; what two processes do at once, one of them skips."""

    def __init__(self, server: Server, keys: Keys, retention: Retention) -> None:
        self._server = server
        self._keys = keys
        self._retention = retention
        self._usual_ms = round(retention.visibility_timeout * 1000)
        self._ttl_ms = 0 if retention.result_ttl is None else round(retention.result_ttl * 1000)
        kept = retention.dead_letter_ttl
        self._kept_ms = "" if kept == float("inf") else str(round(kept * 1000))
        self._pruned_at: float | None = None
        self.queue_kept_ms = round(QUEUE_KEPT * 1000)
        self.consumer_kept_ms = round(CONSUMER_KEPT * 1000)
        self._cursor: Any = 0
        self._listed: list[str] = []
        self.own: set[str] = set()  # those that this process consumes
        self._listed_at = float("-inf")

    def queues(self) -> list[str]:
        """Every queue that anybody used, sorted."""
        names = (name.decode(errors="replace") for name in self._server.command("SMEMBERS", self._keys.queues))
        return sorted(name for name in names if "\ufffd" not in name)  # no such name is written by us

    def known_queues(self) -> list[str]:
        """As `queues`, not asked each time: one that is new elsewhere can wait for seconds, since its consumers promote too."""
        now = time.monotonic()
        if self._server.given or now - self._listed_at >= LIST_EVERY:
            self._listed, self._listed_at = self.queues(), now
        return sorted(self.own.union(self._listed))

    def sweep(self) -> Swept:
        queues = self.known_queues()
        promoted = reclaimed = poisoned = expired = 0
        dues, are_skipped = [], []
        replayed: dict[str, int] = {}
        for start in range(0, len(queues), QUEUES_AT_ONCE):
            some = queues[start : start + QUEUES_AT_ONCE]
            arguments = [self._server.given, self._usual_ms, self._kept_ms]
            asked_at = self._server.clock.now()
            answers = self._server.run_all([Call(Script.named("sweep"), [self._keys.meta(queue)], arguments) for queue in some])
            if answers[0][0]:
                self._server.saw(answers[0][0] / 1000, asked_at)
            for queue, (now, due, *done) in zip(some, answers, strict=True):
                are_skipped.append(not now)
                if due >= 0:
                    dues.append(due / 1000)
                if done:
                    promoted += done[0]
                    expired += done[1]
                    if done[3]:
                        replayed[queue] = done[3]
                    back, dead = self._reclaim(queue, done[2]) if done[2] else (0, 0)
                    reclaimed += back
                    poisoned += dead
        next_due = min(dues, default=None)
        if are_skipped and all(are_skipped):
            return Swept(skipped=True, next_due=next_due)
        self._prune(queues)
        return Swept(promoted, reclaimed, poisoned, expired, next_due, replayed=replayed)

    def _reclaim(self, queue: str, lapsed: Sequence[Any]) -> tuple[int, int]:
        """How many came back, how many were poison."""
        keys = [self._keys.meta(queue), self._keys.names, self._keys.results]
        arguments: list[Any] = [self._server.given, self._usual_ms, self._ttl_ms]
        for lane, entry_id, holder, mark, fields in lapsed:
            entry = read_entry(fields, "")
            fate = after_lapse(entry.counted_state(1), bool(mark), self._retention.max_deaths)
            state = b"" if fate.state is None else pack_state(fate.state)
            match fate:
                case Returned():
                    arguments += (lane, entry_id, holder, state, b"", b"")
                case Poisoned():
                    record = self._poison_record(queue, entry.id, fate)
                    if record:
                        keys.append(self._keys.result(entry.id))
                    arguments += (lane, entry_id, holder, state, msgpack.packb(fate.meta), record)
        returned, poisoned = self._server.run(Script.named("reclaim"), keys, arguments)
        return returned, poisoned

    def _poison_record(self, queue: str, task_id: str, fate: Poisoned) -> bytes:
        if not self._ttl_ms:
            return b""
        return packed_record(poison_record(task_id, queue, fate, read_record(self._server, self._keys, task_id)))

    def _prune(self, queues: Sequence[str]) -> None:
        now = self._server.clock.monotonic()
        if self._pruned_at is not None and now - self._pruned_at < PRUNE_INTERVAL:
            return
        self._pruned_at = now
        keys = self._keys
        self._cursor = self._server.run(
            Script.named("forget"),
            [keys.senders, keys.names, keys.control_channels],
            [self._server.given, self._cursor, round(SENDER_KEPT * 1000), round(NAME_KEPT * 1000)],
        )
        for start in range(0, len(queues), QUEUES_AT_ONCE):
            some = queues[start : start + QUEUES_AT_ONCE]
            calls = [
                Call(Script.named("tidy"), [keys.meta(queue)], [self._server.given, self.queue_kept_ms, self.consumer_kept_ms])
                for queue in some
            ]
            for queue, is_gone in zip(some, self._server.run_all(calls), strict=True):
                if is_gone:
                    self._forget(queue)

    def _forget(self, queue: str) -> None:
        """Take it from the list, and put it back if somebody used it at that very moment."""
        self._server.command("SREM", self._keys.queues, queue)
        if self._server.command("EXISTS", self._keys.meta(queue)):
            self._server.command("SADD", self._keys.queues, queue)
