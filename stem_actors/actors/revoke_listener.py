"""The revoke listener: the worker's ear for revocations and control commands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from stem_actors.actors import messages as m
from stem_actors.actors.control_replies import inspect_reply, ping_reply, revoke_reply, stats_reply
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

__all__ = ["RevokeListener"]

_logger = logging.getLogger("stem.control")

_LISTEN_FOR = 0.25
"""Seconds of one blocking pull; bounds how long a stop waits."""
_REREAD_EVERY = 10.0
_REPLY_TTL = 60.0


@dataclass(frozen=True, slots=True)
class _Listen:
    """Pull what has come."""


Message: TypeAlias = m.Resend | _Listen


class RevokeListener(StemActor):
    """Pulls commands in pages and applies them; rereads the durable revocations, so that a missed command costs seconds.

    Owns:     its place in the control bus and in the revocations.
    Receives: Resend (executor pool).      Tells: executor pool (Revoke, Shutdown).
    Restart:  reads all durable revocations again; applying one twice is harmless.
    """

    def __init__(
        self,
        context: ActorContext,
        store: RevokeStore,
        control: ControlBus,
        worker_id: str,
        incarnation: str,
        namespace: str,
        server_now: Callable[[], float],
        reconnect: Reconnect,
        shut_down: Callable[[m.ShutdownMode], None],
        may_kill_actors: bool,
        vitals: Vitals,
    ) -> None:
        super().__init__(context)
        self._store = store
        self._control = control
        self._worker_id = worker_id
        self._incarnation = incarnation
        self._namespace = namespace
        self._channels = [broadcast_channel(namespace), worker_channel(namespace, worker_id)]
        self._now = server_now
        self._reconnect = reconnect
        self._shut_down = shut_down
        self._may_kill_actors = may_kill_actors
        self._vitals = vitals
        self._revoked: dict[str, Revocation] = {}
        self._leaving: m.ShutdownMode | None = None
        self._cursor: Any = None
        self._mark = 0
        self._read_at = float("-inf")

    def on_start(self) -> None:
        self.after(0.0, _Listen())

    def on_receive(self, message: Message) -> None:
        match message:
            case m.Resend():
                self._mark = 0
                self._read_at = float("-inf")
            case _Listen():
                self.after(self._listen(), _Listen())
            case _:
                assert_never(message)

    def _listen(self) -> float:
        """One look at the store, if it is time, and at the bus; seconds until the next."""
        try:
            if self._cursor is None:
                self._cursor = self._control.cursor(self._channels)
            if self.clock.monotonic() - self._read_at >= _REREAD_EVERY:
                self._read_revocations()
            raw_commands, self._cursor = self._control.pull(self._channels, self._cursor, wait=_LISTEN_FOR)
        except (BrokerUnavailable, StorageFull) as error:
            return self._reconnect.failed(error)
        self._reconnect.succeeded()
        for raw in raw_commands:
            self._obey_raw(raw)
        return 0.0

    def _read_revocations(self) -> None:
        now = self._now()
        self._revoked = {key: each for key, each in self._revoked.items() if each.expires_at is None or each.expires_at > now}
        while revocations := self._store.list_since(self._mark):
            self.tell(m.EXECUTOR_POOL, m.Revoke(revocations))
            self._revoked |= {revocation.task_id: revocation for revocation in revocations}
            self._mark = revocations[-1].version
        self._read_at = self.clock.monotonic()

    def _obey_raw(self, raw: bytes) -> None:
        try:
            command = decode_command(raw)
        except MalformedMessage as error:
            _logger.warning("%s: a control message cannot be read: %s", self._worker_id, error)
            return
        is_late = command.expires_at is not None and command.expires_at < self._now()
        if command.is_for(self._worker_id) and not is_late:
            self._reply(command, self._obey(command))

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
