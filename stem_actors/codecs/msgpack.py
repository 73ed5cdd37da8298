"""The wire form of envelopes and payloads (version 1): msgpack, decoded with limits. There is no pickle anywhere.

Owns the translation of seconds to the wire's milliseconds, and the checks on bytes that may come from anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import msgpack

from stem_actors.codecs.payload_types import PayloadTypes, Undecodable, from_ext, to_ext
from stem_actors.errors import MalformedMessage, PayloadError
from stem_actors.model.delivery import Delivery, Handout
from stem_actors.model.envelope import WIRE_VERSION, Envelope

__all__ = [
    "DEFAULT_MAX_BYTES",
    "decode_delivery",
    "decode_envelope",
    "decode_payload",
    "encode_envelope",
    "encode_payload",
    "fingerprint",
]

DEFAULT_MAX_BYTES = 262_144
_MAX_NESTING = 64
_FIELDS = len(Envelope._fields)


# ---------------------------------------------------------------- envelopes


def encode_envelope(envelope: Envelope, max_bytes: int = DEFAULT_MAX_BYTES, types: PayloadTypes | None = None) -> bytes:
    """The bytes of an envelope, made once by the producer.

    Raises:
        PayloadError: an argument has no wire form (the message says which), or the whole is larger than `max_bytes`.
    """
    wire = list(envelope)
    wire[6] = round(envelope.enqueued_at * 1000)
    wire[7] = None if envelope.expires_at is None else round(envelope.expires_at * 1000)
    wire[10] = None if envelope.visibility_timeout is None else round(envelope.visibility_timeout * 1000)
    try:
        body: bytes = msgpack.packb(wire, default=_ext_writer(types), datetime=True, strict_types=False)
        if _possible_containers(body) > _OWN_CONTAINERS:  # or a byte of the time looks like one
            for part in (envelope.args, envelope.kwargs, envelope.headers, envelope.meta):
                if part:
                    _check_shape(part, depth=1)
    except _UNPACKABLE as error:
        raise PayloadError(_explain(envelope, error, types)) from error
    if len(body) > max_bytes:
        raise PayloadError(
            f"task {envelope.name!r}: the message has {len(body):,} bytes, more than the {max_bytes:,} allowed. "
            "Pass a reference to the data, or raise STEM_MAX_PAYLOAD_BYTES."
        )
    return body


def decode_envelope(body: bytes, max_bytes: int = DEFAULT_MAX_BYTES, types: PayloadTypes | None = None) -> Envelope:
    """Read and check an envelope that may come from anybody. Without `types` the user's are left as they are.

    Raises:
        MalformedMessage: `too-large`, `unsupported-version`, `malformed`; `undecodable-args` for a type that is not in `types`.
    """
    if len(body) > max_bytes:
        raise MalformedMessage("too-large", f"the message has {len(body):,} bytes, more than the {max_bytes:,} allowed")
    try:
        fields = _unpack(body, types)
    except Undecodable as error:
        raise MalformedMessage("undecodable-args", str(error)) from error
    except _UNREADABLE as error:
        raise MalformedMessage(
            "malformed", f"the message is not msgpack within limits: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(fields, list) or not fields or not isinstance(fields[0], int):
        raise MalformedMessage("malformed", "the message is not an array that starts with a version")
    if fields[0] != WIRE_VERSION:
        raise MalformedMessage("unsupported-version", f"wire version {fields[0]}; this worker knows {WIRE_VERSION}")
    if len(fields) < _FIELDS:
        raise MalformedMessage("malformed", f"the message has {len(fields)} fields of {_FIELDS}")
    return _checked(fields)


def decode_delivery(handout: Handout, max_bytes: int = DEFAULT_MAX_BYTES) -> Delivery:
    """Read what a broker handed out. Raises `MalformedMessage` like `decode_envelope`."""
    lease, _, body, state, _ = handout
    if state is None:
        raise MalformedMessage("malformed", "the delivery's state cannot be read")
    return Delivery(decode_envelope(body, max_bytes), state, lease, body)


def fingerprint(envelope: Envelope, headers: Sequence[str] = (), types: PayloadTypes | None = None) -> str:
    """What calls have in common that ask for the same: a digest of task, queue, arguments and these headers.

    Arguments count as they travel, so a list is a tuple; the order of a dict's keys does not count.

    Raises:
        PayloadError: an argument has no wire form.
    """
    told_apart = {name: envelope.headers.get(name) for name in headers}
    asked = [envelope.name, envelope.queue, envelope.args, envelope.kwargs, told_apart]
    try:
        packed = msgpack.packb(asked, default=_ext_writer(types), datetime=True)
        plain = msgpack.unpackb(packed, ext_hook=msgpack.ExtType, strict_map_key=False)
        return sha256(msgpack.packb(_in_order(plain))).hexdigest()
    except _UNPACKABLE as error:
        raise PayloadError(_explain(envelope, error, types)) from error


def _in_order(value: Any) -> Any:
    """The same with the keys of each dict in one order."""
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value, key=repr)}
    return [_in_order(item) for item in value] if isinstance(value, list) else value


def _checked(fields: list[Any]) -> Envelope:
    """Check types and turn milliseconds into seconds. Fields that later writers of this version append are not read."""
    if len(fields) > _FIELDS:
        fields = fields[:_FIELDS]
    version, id, name, args, kwargs, headers, enqueued_at, expires_at, priority, max_retries, visibility, queue, meta = fields
    if not (
        (id and name and queue and isinstance(id, str) and isinstance(name, str) and isinstance(queue, str))
        and (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(headers, dict) and isinstance(meta, dict))
        and (isinstance(enqueued_at, int) and isinstance(priority, int) and isinstance(max_retries, int))
        and (expires_at is None or isinstance(expires_at, int))
        and (visibility is None or isinstance(visibility, int))
        and (not kwargs or all(isinstance(key, str) for key in kwargs))
    ):
        raise MalformedMessage("malformed", "a field of the message has the wrong type")
    return Envelope(
        version,
        id,
        name,
        args,
        kwargs,
        headers,
        enqueued_at / 1000,
        None if expires_at is None else expires_at / 1000,
        priority,
        max_retries,
        None if visibility is None else visibility / 1000,
        queue,
        meta,
    )


def _explain(envelope: Envelope, error: Exception, types: PayloadTypes | None) -> str:
    """Name the argument that cannot travel, so that nobody has to search for it."""
    named = [(f"argument {n}", value) for n, value in enumerate(envelope.args)]
    named += [(f"argument {key!r}", value) for key, value in envelope.kwargs.items()]
    named += [("headers", envelope.headers), ("meta", envelope.meta)]
    for what, value in named:
        try:
            msgpack.packb(value, default=_ext_writer(types), datetime=True)
            _check_shape([value], depth=1)  # as deep as it stands in the message
        except _UNPACKABLE as cause:
            return f"task {envelope.name!r}: {what} cannot travel: {cause}. {_TRAVELS}"
    return f"task {envelope.name!r}: the message cannot be encoded: {error}. {_TRAVELS}"


# ---------------------------------------------------------------- payloads


def encode_payload(value: Any, max_bytes: int = DEFAULT_MAX_BYTES, types: PayloadTypes | None = None) -> bytes:
    """The bytes of a task's result.

    Raises:
        PayloadError: no wire form, or larger than `max_bytes`.
    """
    if value is None:
        return b"\xc0"
    try:
        payload: bytes = msgpack.packb(value, default=_ext_writer(types), datetime=True)
        _check_shape([value], depth=-1)
    except _UNPACKABLE as error:
        raise PayloadError(f"the value cannot travel: {error}. {_TRAVELS}") from error
    if len(payload) > max_bytes:
        raise PayloadError(f"the value has {len(payload):,} bytes, more than the {max_bytes:,} allowed (STEM_MAX_PAYLOAD_BYTES)")
    return payload


def decode_payload(payload: bytes, types: PayloadTypes | None = None) -> Any:
    """Read a result. Raises `MalformedMessage` when the bytes are none of ours, or of a type that is not in `types`."""
    try:
        return _unpack(payload, types)
    except _UNREADABLE as error:
        raise MalformedMessage("malformed", f"the payload cannot be read: {error}") from error


# ---------------------------------------------------------------- msgpack

_TRAVELS = (
    "None, bool, int (64 bit), float, str, bytes, list, tuple, dict, aware datetime, Decimal and UUID travel, "
    "and what is registered with app.payload_type()."
)
_UNPACKABLE = (TypeError, ValueError, OverflowError, RecursionError)
_CONTAINERS, _KEYS = (list, tuple, dict), (str, bytes)
_CONTAINER_HEADERS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_OWN_CONTAINERS = 5  # the envelope itself, args, kwargs, headers, meta
_UNREADABLE = (ValueError, TypeError, OverflowError, RecursionError, ArithmeticError)


def _ext_writer(types: PayloadTypes | None) -> Callable[[Any], Any]:
    return to_ext if types is None else types.to_ext


def _unpack(raw: bytes, types: PayloadTypes | None) -> Any:
    size = len(raw)  # an item takes a byte at least
    value = msgpack.unpackb(
        raw,
        ext_hook=from_ext if types is None else types.from_ext,
        timestamp=3,
        strict_map_key=True,
        max_str_len=size,
        max_bin_len=size,
        max_array_len=size,
        max_map_len=size,
        max_ext_len=size,
    )
    if _possible_containers(raw) > _MAX_NESTING:
        _check_shape([value], depth=-1)
    return value


def _possible_containers(raw: bytes) -> int:
    """At most so many lists and dicts are in these bytes: five times as fast as a look at each value, and mostly enough."""
    return len(raw) - len(raw.translate(None, _CONTAINER_HEADERS))


def _check_shape(value: Any, depth: int = 0) -> None:
    """What msgpack would let through: nesting without end, and keys that a reader refuses. The same for writer and reader."""
    if depth > _MAX_NESTING:
        raise ValueError(f"nested deeper than {_MAX_NESTING}")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, _KEYS):
                raise TypeError(f"the key {key!r} of a dict is no str")
        value = value.values()
    for item in value:
        if isinstance(item, _CONTAINERS):
            _check_shape(item, depth + 1)
