from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import msgpack
import pytest

from stem_actors.codecs.msgpack import decode_delivery, decode_envelope, decode_payload, encode_envelope, encode_payload
from stem_actors.errors import MalformedMessage, PayloadError
from stem_actors.model.delivery import Handout, Lease, State
from stem_actors.model.envelope import Envelope

LEASE = Lease("t1", "me#1", "default", 30.0, 1000.0)


def envelope(*args: Any, **kwargs: Any) -> Envelope:
    return Envelope(
        1, "id-1", "shop.mail", list(args), kwargs, {"tenant": "a"}, 1_700_000_000.25, None, 5, 3, None, "default", {}
    )


def wire(**changes: Any) -> list[Any]:
    """A good message as its array, with some fields changed."""
    fields = msgpack.unpackb(encode_envelope(envelope(1)))
    for name, value in changes.items():
        fields[Envelope._fields.index(name)] = value
    return list(fields)


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_an_envelope_survives_the_wire() -> None:
    sent = envelope(1, "ü", key=[None, {"a": b"\x00"}])._replace(
        expires_at=1_700_000_001.5, visibility_timeout=2.5, meta={"m": 1}
    )
    assert decode_envelope(encode_envelope(sent)) == sent


def test_times_travel_as_milliseconds() -> None:
    fields = msgpack.unpackb(encode_envelope(envelope()._replace(expires_at=2.0004, visibility_timeout=0.5)))
    assert (fields[6], fields[7], fields[10]) == (1_700_000_000_250, 2000, 500)


def test_fields_appended_by_later_writers_are_not_read() -> None:
    assert decode_envelope(msgpack.packb([*wire(), "new", {"x": 1}])) == decode_envelope(msgpack.packb(wire()))


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_is_unsupported(version: int) -> None:
    with pytest.raises(MalformedMessage, match="knows 1") as caught:
        decode_envelope(msgpack.packb(wire(version=version)))
    assert caught.value.reason == "unsupported-version"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", 7),
        ("name", None),
        ("name", b"shop.mail"),
        ("args", {}),
        ("kwargs", []),
        ("kwargs", {b"key": 1}),
        ("headers", None),
        ("enqueued_at", 1.5),
        ("expires_at", "soon"),
        ("priority", None),
        ("max_retries", "3"),
        ("visibility_timeout", 0.5),
        ("queue", ""),
        ("meta", 0),
    ],
)
def test_a_field_of_the_wrong_type_is_malformed(field: str, value: object) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_envelope(msgpack.packb(wire(**{field: value})))
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"\x90",
        msgpack.packb([1, "id"]),
        msgpack.packb({"v": 1}),
        msgpack.packb(wire()) + b"\x00",
        msgpack.packb(wire())[:-1],
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff\x00",
        msgpack.packb(wire(args=[{1: 2}])),
        msgpack.packb(wire(args=[msgpack.ExtType(1, b"no number")])),
        msgpack.packb(wire(args=[msgpack.ExtType(1, b"\xff")])),
        msgpack.packb(wire(args=[msgpack.ExtType(2, b"short")])),
        msgpack.packb(wire(args=[msgpack.Timestamp(2**62, 0)])),
        msgpack.packb(wire(args=nested(80))),
        b"\x91" * 600 + b"\xc0",
        b"\x91" * 200_000 + b"\xc0",
        b"\xa1\xff",
    ],
)
def test_what_is_no_message_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_envelope(raw)
    assert caught.value.reason == "malformed"


def test_a_large_message_is_not_read() -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_envelope(bytes(2000), max_bytes=1999)
    assert caught.value.reason == "too-large"


def test_a_message_too_large_is_refused_by_its_writer() -> None:
    with pytest.raises(PayloadError, match=r"shop.mail.* more than the 1,000 allowed"):
        encode_envelope(envelope("x" * 1000), max_bytes=1000)


class Colour:
    pass


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({1, 2}, "set"),
        (2**64, "int"),
        (-(2**63) - 1, "int"),
        ("\ud800", "surrogates"),
        (dt.datetime(2026, 1, 1), "aware"),
        (dt.date(2026, 1, 1), "date"),
        (Colour(), "Colour"),
        ({"deep": [{1: "one"}]}, "key 1"),
        ({(1, 2): "pair"}, "key"),
        (nested(70), "nested deeper"),
        (nested(2000), "recursion|nested"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else None,
)
@pytest.mark.parametrize("by_name", [False, True])
def test_an_argument_that_cannot_travel_is_named(value: object, why: str, by_name: bool) -> None:
    sent = envelope(1, colour=value) if by_name else envelope(1, value)
    named = "argument 'colour'" if by_name else "argument 1"
    with pytest.raises(PayloadError, match=f"task 'shop.mail': {named} cannot travel: .*({why})"):
        encode_envelope(sent)
    with pytest.raises(PayloadError, match=f"the value cannot travel: .*({why})"):
        encode_payload(value)


def test_what_the_writer_takes_the_reader_takes() -> None:
    """Both bound nesting at the same depth, and neither the number of items but by the size of the whole."""
    for value in (nested(60), [0] * 200_000, {str(n): None for n in range(20_000)}):
        assert decode_payload(encode_payload(value)) == value
        assert list(decode_envelope(encode_envelope(envelope(value))).args) == [value]
    deepest = 0
    for levels in range(55, 75):
        try:
            body = encode_envelope(envelope(nested(levels)))
        except PayloadError:
            break
        decode_envelope(body)
        deepest = levels
    assert 60 < deepest < 70


def test_every_type_that_travels_comes_back() -> None:
    moment = dt.datetime(2026, 11, 24, 6, 0, 0, 123456, dt.timezone(dt.timedelta(hours=2)))
    value = [None, True, -(2**63), 2**64 - 1, 1.5, "ü", b"\x00", [1], {"k": moment}, Decimal("1.10"), uuid.UUID(int=7)]
    assert decode_payload(encode_payload(value)) == value
    assert str(decode_payload(encode_payload(Decimal("1.10")))) == "1.10"
    assert decode_payload(encode_payload((1, 2))) == [1, 2]


def test_a_result_too_large_is_refused() -> None:
    assert encode_payload(None, max_bytes=0) == b"\xc0"
    with pytest.raises(PayloadError, match="STEM_MAX_PAYLOAD_BYTES"):
        encode_payload(b"x" * 100, max_bytes=100)


def test_a_handout_is_read_with_its_state_and_lease() -> None:
    body = encode_envelope(envelope(1))
    delivery = decode_delivery(Handout(LEASE, "id-1", body, State(attempt=2)))
    assert (delivery.envelope.name, delivery.state.attempt, delivery.lease, delivery.body) == ("shop.mail", 2, LEASE, body)


def test_a_handout_without_a_readable_state_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="state"):
        decode_delivery(Handout(LEASE, "id-1", encode_envelope(envelope(1)), None))
