"""`Fleet`: asks running workers something, and gathers what they answer until all have, or time is up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stem_actors.clock import Clock
from stem_actors.errors import MalformedMessage
from stem_actors.model.control import (
    ALL_WORKERS,
    ControlCommand,
    ControlReply,
    broadcast_channel,
    decode_reply,
    encode_command,
    reply_channel,
)
from stem_actors.model.ids import new_task_id
from stem_actors.ports import Stores

__all__ = ["Answers", "Fleet"]


@dataclass(frozen=True, slots=True)
class Answers:
    """`replies` by worker id; `silent`: workers that were expected to answer and did not in time."""

    request_id: str
    replies: Sequence[ControlReply]
    silent: Sequence[str]


class Fleet:
    """The workers of one namespace, as one who sends them commands sees them. Any thread."""

    def __init__(self, stores: Stores, namespace: str, clock: Clock) -> None:
        self._stores = stores
        self._namespace = namespace
        self._clock = clock

    def alive(self) -> list[str]:
        """The ids of the workers with a live heartbeat."""
        return [str(beat.get("workerId")) for beat in self._stores.heartbeats.list_heartbeats()]

    def ask(
        self, type: str, payload: Mapping[str, Any] | None = None, workers: Sequence[str] = (), timeout: float = 5.0
    ) -> Answers:
        """Send a command and wait up to `timeout` seconds for those expected to answer: `workers`, or else all alive.

        Every worker hears it; those who are not meant leave it. One of which nothing is known may answer, too. A command is void
        after `timeout`: who reads it later does nothing. With nobody alive and nobody named, it waits the whole time.

        Raises:
            BrokerUnavailable: the control bus cannot be reached.
        """
        control = self._stores.control
        expected = set(workers or self.alive())
        request_id = new_task_id()
        replies_at = reply_channel(self._namespace, request_id)
        cursor = control.cursor([replies_at])  # before it is sent: nobody answers sooner than we listen
        command = ControlCommand(
            request_id, type, list(workers) or list(ALL_WORKERS), payload or {}, self._stores.broker.now() + timeout
        )
        control.send(broadcast_channel(self._namespace), encode_command(command), timeout)
        found: dict[tuple[str, str | None], ControlReply] = {}
        deadline = self._clock.monotonic() + timeout
        while not expected or expected - {worker_id for worker_id, _ in found}:
            left = deadline - self._clock.monotonic()
            if left <= 0:
                break
            raw_replies, cursor = control.pull([replies_at], cursor, wait=left)
            for raw in raw_replies:
                reply = _read(raw, request_id)
                if reply is not None:
                    found[reply.worker_id, reply.incarnation] = reply
        answered = {worker_id for worker_id, _ in found}
        return Answers(request_id, [found[key] for key in sorted(found, key=str)], sorted(expected - answered))


def _read(raw: bytes, request_id: str) -> ControlReply | None:
    """A reply to this request; what cannot be read is somebody else's garbage."""
    try:
        reply = decode_reply(raw)
    except MalformedMessage:
        return None
    return reply if reply.request_id == request_id else None
