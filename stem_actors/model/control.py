"""Commands to workers and their replies: the values, their wire form, and the names of the channels they travel on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgpack

from stem_actors.errors import MalformedMessage

__all__ = [
    "ALL_WORKERS",
    "ControlCommand",
    "ControlReply",
    "broadcast_channel",
    "decode_command",
    "decode_reply",
    "encode_command",
    "encode_reply",
    "pack_revocation",
    "reply_channel",
    "unpack_revocation",
    "worker_channel",
]

ALL_WORKERS = ("*",)
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ControlCommand:
    """What a worker is asked to do. `type` is `ping`, `revoke`, `shutdown` …

    `targets`     worker ids, or `*` for all
    `expires_at`  not to be obeyed later than this, seconds since the epoch
    """

    request_id: str
    type: str
    targets: Sequence[str] = ALL_WORKERS
    payload: Mapping[str, Any] = field(default_factory=dict)
    expires_at: float | None = None

    def is_for(self, worker_id: str) -> bool:
        return "*" in self.targets or worker_id in self.targets


@dataclass(frozen=True, slots=True)
class ControlReply:
    """What a worker answers. `status` is `ok` or `error`; `error` then holds `message`, and `detail` or `stack` perhaps.

    `incarnation` tells two workers apart that share a name.
    """

    request_id: str
    worker_id: str
    status: str = "ok"
    payload: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    incarnation: str | None = None


def broadcast_channel(namespace: str) -> str:
    """Where every worker listens."""
    return f"{namespace}.control.broadcast"


def worker_channel(namespace: str, worker_id: str) -> str:
    """Where one worker listens."""
    return f"{namespace}.control.worker.{worker_id}"


def reply_channel(namespace: str, request_id: str) -> str:
    """Where who sent `request_id` listens."""
    return f"{namespace}.control.reply.{request_id}"


# ---------------------------------------------------------------- wire


def encode_command(command: ControlCommand) -> bytes:
    return _pack(
        {
            "type": command.type,
            "request_id": command.request_id,
            "targets": list(command.targets),
            "payload": dict(command.payload),
            "expires_at": _milliseconds(command.expires_at),
        }
    )


def decode_command(raw: bytes) -> ControlCommand:
    """Read and check a command that may come from anybody; raises `MalformedMessage`."""
    match _unpack(raw):
        case {"type": str(type), "request_id": str(request_id), "targets": list(targets), "payload": dict(payload), **rest}:
            expires_at = rest.get("expires_at")
            if all(isinstance(target, str) for target in targets) and isinstance(expires_at, int | None):
                return ControlCommand(request_id, type, targets, payload, _seconds(expires_at))
    raise MalformedMessage("malformed", "the control message is no command")


def encode_reply(reply: ControlReply) -> bytes:
    return _pack(
        {
            "request_id": reply.request_id,
            "worker_id": reply.worker_id,
            "status": reply.status,
            "payload": dict(reply.payload),
            "error": None if reply.error is None else dict(reply.error),
            "incarnation": reply.incarnation,
        }
    )


def decode_reply(raw: bytes) -> ControlReply:
    """Read and check a reply; raises `MalformedMessage`."""
    match _unpack(raw):
        case {
            "request_id": str(request_id),
            "worker_id": str(worker_id),
            "status": str(status),
            "payload": dict(payload),
            **rest,
        }:
            error, incarnation = rest.get("error"), rest.get("incarnation")
            if isinstance(error, dict | None) and isinstance(incarnation, str | None):
                return ControlReply(request_id, worker_id, status, payload, error, incarnation)
    raise MalformedMessage("malformed", "the control message is no reply")


class _Revocation(Protocol):
    """What `ports.Revocation` looks like; the model does not know the ports."""

    @property
    def task_id(self) -> str: ...
    @property
    def terminate(self) -> bool: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def requested_by(self) -> str | None: ...
    @property
    def issued_at(self) -> float: ...
    @property
    def expires_at(self) -> float | None: ...
    @property
    def version(self) -> int: ...


def pack_revocation(revocation: _Revocation) -> dict[str, Any]:
    """An entry of a `revoke` command's payload `revocations`."""
    return {
        "task_id": revocation.task_id,
        "terminate": revocation.terminate,
        "reason": revocation.reason,
        "requested_by": revocation.requested_by,
        "issued_at": _milliseconds(revocation.issued_at),
        "expires_at": _milliseconds(revocation.expires_at),
        "version": revocation.version,
    }


def unpack_revocation(entry: Any) -> dict[str, Any]:
    """The fields for `ports.Revocation(**fields)`; raises `MalformedMessage` at what `pack_revocation` did not make."""
    match entry:
        case {
            "task_id": str(task_id),
            "terminate": bool(terminate),
            "reason": str() | None as reason,
            "requested_by": str() | None as requested_by,
            "issued_at": int(issued_at),
            "expires_at": int() | None as expires_at,
            "version": int(version),
        }:
            return {
                "task_id": task_id,
                "terminate": terminate,
                "reason": reason,
                "requested_by": requested_by,
                "issued_at": issued_at / 1000,
                "expires_at": _seconds(expires_at),
                "version": version,
            }
    raise MalformedMessage("malformed", "the control message holds no revocation")


def _pack(message: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(message)
    return packed


def _unpack(raw: bytes) -> Any:
    if len(raw) > _MAX_BYTES:
        raise MalformedMessage("too-large", f"the control message has {len(raw):,} bytes")
    try:
        return msgpack.unpackb(raw, strict_map_key=True)
    except (ValueError, TypeError, RecursionError) as error:
        raise MalformedMessage("malformed", f"the control message cannot be read: {error}") from error


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
