"""The revoke listener: the worker's ear for revocations and control commands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from stem_actors.actors import messages as m
from stem_actors.actors.control_replies import (
    inspect_reply,
    pause_reply,
    ping_reply,
    queue_status_reply,
    revoke_reply,
    stats_reply,
)
from stem_actors.actors.paused_queues import PausedQueues
from stem_actors.actors.reconnect import Reconnect
from stem_actors.actors.vitals import Vitals
from stem_actors.errors import BrokerUnavailable, MalformedMessage, StemError, StorageFull
from stem_actors.model.control import (
    ControlCommand,
    ControlReply,
    broadcast_channel,
    decode_command,
    encode_reply,
    reply_channel,
    worker_channel,
)
from stem_actors.ports import ControlBus, Revocation, RevokeStore
from stem_actors.supervision.base import ActorContext, StemActor

__all__ = ["MOST_EXECUTORS", "RevokeListener"]

_logger = logging.getLogger("stem.control")

_LISTEN_FOR = 0.25
"""Seconds of one blocking pull; bounds how long a stop waits."""
_REREAD_EVERY = 10.0
_TRY_AGAIN_AFTER = 1.0
_REPLY_TTL = 60.0
MOST_EXECUTORS = 256
"""As many as a command may ask for, unless the worker was started with more."""


@dataclass(frozen=True, slots=True)
class _Listen:
    """Pull what has come."""


Message: TypeAlias = m.Resend | _Listen


class RevokeListener(StemActor):
    """Pulls commands in pages and applies them; rereads revocations and pauses, so that a missed command costs seconds.

    `most_executors`: as many as a command may ask for; None: the worker scales itself.

    Owns:     its place in the control bus and in the revocations; `Vitals.paused`, and `Vitals.concurrency` unless an autoscaler
              does.
    Receives: Resend (executor pool).      Tells: executor pool (Revoke, RevocationsKnown, PausesChanged, ConcurrencyChanged),
              consumer (PausesChanged).
    Restart:  reads all durable revocations and the pauses again; applying one twice is harmless.
    """

    def __init__(
        self,
        context: ActorContext,
        store: RevokeStore,
        pauses: PausedQueues,
        control: ControlBus,
        worker_id: str,
        incarnation: str,
        namespace: str,
        server_now: Callable[[], float],
        reconnect: Reconnect,
        shut_down: Callable[[m.ShutdownMode], None],
        may_kill_actors: bool,
        most_executors: int | None,
        vitals: Vitals,
    ) -> None:
        super().__init__(context)
        self._store = store
        self._pauses = pauses
        self._control = control
        self._worker_id = worker_id
        self._incarnation = incarnation
        self._namespace = namespace
        self._channels = [broadcast_channel(namespace), worker_channel(namespace, worker_id)]
        self._now = server_now
        self._reconnect = reconnect
        self._shut_down = shut_down
        self._may_kill_actors = may_kill_actors
        self._most_executors = most_executors
        self._vitals = vitals
        self._revoked: dict[str, Revocation] = {}
        self._leaving: m.ShutdownMode | None = None
        self._cursor: Any = None
        self._mark = 0
        self._has_told_all = False
        self._read_at = float("-inf")
        self._away: StemError | None = None  # why the stores could not be read when it was tried last

    def on_start(self) -> None:
        self.after(0.0, _Listen())

    def on_receive(self, message: Message) -> None:
        match message:
            case m.Resend():
                self._mark = 0
                self._read_at = float("-inf")
                self._has_told_all = False
            case _Listen():
                self.after(self._listen(), _Listen())
            case _:
                assert_never(message)

    def _listen(self) -> float:
        """One look at the store, if it is time, and at the bus; seconds until the next."""
        try:
            if self._cursor is None:
                self._cursor = self._control.cursor(self._channels)
            away = self._reread()
            raw_commands, self._cursor = self._control.pull(self._channels, self._cursor, wait=_LISTEN_FOR)
        except (BrokerUnavailable, StorageFull) as error:
            return self._reconnect.failed(error)
        self._reconnect.succeeded()
        self._note_away(away)
        for raw in raw_commands:
            self._obey_raw(raw)
        return 0.0

    def _reread(self) -> StemError | None:
        """Look at what is stored, if it is time. While its place is away, which may be another than the broker's, commands are
        obeyed all the same, and the error is returned; but the first time all of it has to be read.
        """
        if self.clock.monotonic() - self._read_at < _REREAD_EVERY:
            return self._away
        try:
            self._read_pauses()  # first: once it knows the revocations the pool lets the consumer fetch
            self._read_revocations()
        except (BrokerUnavailable, StorageFull) as error:
            if not self._has_told_all:
                raise
            self._read_at = self.clock.monotonic() - _REREAD_EVERY + _TRY_AGAIN_AFTER
            return error
        return None

    def _note_away(self, away: StemError | None) -> None:
        if away is not None and self._away is None:
            _logger.warning("%s: revocations and pauses cannot be read, and hold as they are known: %s", self._worker_id, away)
        elif away is None and self._away is not None:
            _logger.info("%s: revocations and pauses can be read again", self._worker_id)
        self._away = away

    def _read_revocations(self) -> None:
        now = self._now()
        self._revoked = {key: each for key, each in self._revoked.items() if each.expires_at is None or each.expires_at > now}
        while revocations := self._store.list_since(self._mark):
            self.tell(m.EXECUTOR_POOL, m.Revoke(revocations))
            self._revoked |= {revocation.task_id: revocation for revocation in revocations}
            self._mark = revocations[-1].version
        self._read_at = self.clock.monotonic()
        if not self._has_told_all:
            self._has_told_all = True
            self.tell(m.EXECUTOR_POOL, m.RevocationsKnown())

    def _read_pauses(self) -> frozenset[str]:
        """The queues for which something has changed."""
        changed = self._pauses.read()
        if changed:
            for actor in (m.CONSUMER, m.EXECUTOR_POOL):
                self.tell(actor, m.PausesChanged())
        return changed

    def _obey_raw(self, raw: bytes) -> None:
        try:
            command = decode_command(raw)
        except MalformedMessage as error:
            _logger.warning("%s: a control message cannot be read: %s", self._worker_id, error)
            return
        is_late = command.expires_at is not None and command.expires_at < self._now()
        if command.is_for(self._worker_id) and not is_late:
            try:
                reply = self._obey(command)
            except (BrokerUnavailable, StorageFull) as error:
                self._read_at = float("-inf")
                reply = self._error(command, f"what is stored cannot be read now: {error}")
            self._reply(command, reply)

    def _obey(self, command: ControlCommand) -> ControlReply:
        match command.type:
            case "ping":
                return self._ok(command, ping_reply(self._vitals.snapshot, self._now()))
            case "stats":
                renewed_at = self._vitals.renewed_at
                renewed_ago = self.clock.monotonic() - renewed_at if renewed_at else None
                return self._ok(command, stats_reply(self._vitals.snapshot, self._now(), renewed_ago))
            case "inspect":
                wants_revoked = command.payload.get("includeRevoked", True)
                revoked = list(self._revoked.values()) if wants_revoked else None
                return self._ok(command, inspect_reply(self._vitals.snapshot, self._now(), revoked))
            case "revoke":
                self._read_revocations()  # stored before it was broadcast
                return self._ok(command, self._revoked_reply(command.payload))
            case "queue_pause" | "queue_resume":
                changed = self._read_pauses()  # stored before it was broadcast
                return self._ok(command, pause_reply(self._namespace, command, changed, self._vitals.paused, self._pauses.stored))
            case "queue_status":
                return self._ok(command, queue_status_reply(self._vitals.snapshot, self._namespace, self._vitals.paused))
            case "set_concurrency":
                return self._set_concurrency(command)
            case "shutdown":
                return self._ok(command, self._leave(str(command.payload.get("mode", "warm"))))
            case "kill_actor" if self._may_kill_actors:
                actor = str(command.payload.get("actor"))
                if self.context.directory.kill(actor):
                    return self._ok(command, {"killed": actor})
                return self._error(command, f"no actor is called {actor!r}")
            case "kill_actor":
                return self._error(command, "this node was not started with --enable-chaos")
            case _:
                return self._error(command, f"unknown control command {command.type!r}")

    def _revoked_reply(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        entries = payload.get("revocations")
        asked = [str(entry["task_id"]) for entry in entries or () if isinstance(entry, dict) and "task_id" in entry]
        return revoke_reply(self._vitals.snapshot, asked, self._revoked, self._mark, self._now())

    def _set_concurrency(self, command: ControlCommand) -> ControlReply:
        before = self._vitals.concurrency
        match command.payload:
            case {"value": int(wanted)}:
                pass
            case {"delta": int(delta)}:
                wanted = before + delta
            case _:
                return self._error(command, "it takes a value or a delta, a whole number")
        if self._most_executors is None:
            return self._error(command, "this worker was started with --autoscale and scales itself")
        if not 1 <= wanted <= self._most_executors:
            return self._error(command, f"the concurrency of this worker is from 1 to {self._most_executors}, not {wanted}")
        if wanted != before:
            facts = {"worker": self._worker_id, "from": before, "to": wanted}
            _logger.info("%s goes from %d to %d executors, as it was told to", *facts.values(), extra=facts)
            self._vitals.concurrency = wanted
            self.tell(m.EXECUTOR_POOL, m.ConcurrencyChanged())
        return self._ok(command, {"was": before, "concurrency": wanted, "namespace": self._namespace})

    def _leave(self, wanted: str) -> dict[str, Any]:
        """Shut down in the mode of this name; one that does not go beyond a shutdown under way changes nothing."""
        mode = _MODES.get(wanted, _WARM)
        extras = self._vitals.snapshot.get("extras", {})
        is_new = mode > self._leaving if self._leaving is not None else extras.get("state") != "draining" or mode > _WARM
        if is_new:
            self._leaving = mode
            self._shut_down(mode)
        status = "initiated" if is_new else "in-progress"
        return {"status": status, "mode": mode.name.lower(), "active": len(extras.get("active", ()))}

    def _ok(self, command: ControlCommand, payload: dict[str, Any]) -> ControlReply:
        return ControlReply(command.request_id, self._worker_id, "ok", payload, None, self._incarnation)

    def _error(self, command: ControlCommand, message: str) -> ControlReply:
        return ControlReply(command.request_id, self._worker_id, "error", {}, {"message": message}, self._incarnation)

    def _reply(self, command: ControlCommand, reply: ControlReply) -> None:
        try:
            self._control.send(reply_channel(self._namespace, command.request_id), encode_reply(reply), _REPLY_TTL)
        except StemError as error:
            _logger.info("%s: cannot answer a %s command: %s", self._worker_id, command.type, error)


_WARM = m.ShutdownMode.WARM
_MODES = {
    "warm": _WARM,
    "graceful": _WARM,
    "soft": m.ShutdownMode.SOFT,
    "hard": m.ShutdownMode.HARD,
    "force": m.ShutdownMode.HARD,
}
