from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from typing import Any, NamedTuple
from uuid import UUID

import msgpack
import pytest

from stem_actors.codecs.msgpack import decode_envelope, decode_payload, encode_envelope, encode_payload
from stem_actors.codecs.payload_types import PayloadTypes
from stem_actors.errors import MalformedMessage, PayloadError, UsageError
from stem_actors.model.envelope import Envelope


@dataclass(frozen=True)
class Money:
    cents: int

    def to_bytes(self) -> bytes:
        return b"%d" % self.cents

    @classmethod
    def from_bytes(cls, data: bytes) -> Money:
        return cls(int(data))


class Dear(Money):
    pass


class Colour(IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int


@pytest.fixture
def types() -> PayloadTypes:
    made = PayloadTypes()
    made.add(16, Money, Money.to_bytes, Money.from_bytes)
    return made


def envelope(*args: Any) -> Envelope:
    return Envelope(1, "i", "t", list(args), {}, {}, 0.0, None, 0, 3, None, "default", {})


def test_a_registered_type_travels_anywhere_in_a_value(types: PayloadTypes) -> None:
    value = [Money(1), {"price": Money(2), "weight": Decimal("1.5"), "id": UUID(int=1)}]
    assert decode_payload(encode_payload(value, types=types), types) == value
    body = encode_envelope(envelope(value), types=types)
    assert decode_envelope(body, types=types).args == [value]


def test_whoever_knows_no_types_leaves_a_value_as_it_is(types: PayloadTypes) -> None:
    assert decode_envelope(encode_envelope(envelope(Money(1)), types=types)).args == [msgpack.ExtType(16, b"1")]


def test_a_code_that_is_not_known_is_an_error_that_says_what_to_do(types: PayloadTypes) -> None:
    with pytest.raises(MalformedMessage, match=r"payload type 16 is not known here.*app\.payload_type\(16") as caught:
        decode_envelope(encode_envelope(envelope(Money(1)), types=types), types=PayloadTypes())
    assert caught.value.reason == "undecodable-args"
    with pytest.raises(MalformedMessage, match="payload type 16"):
        decode_payload(encode_payload(Money(1), types=types), PayloadTypes())


def test_a_decoder_that_fails_makes_arguments_undecodable(types: PayloadTypes) -> None:
    body = encode_envelope(envelope(msgpack.ExtType(16, b"x")))
    with pytest.raises(MalformedMessage, match=r"decoder of Money.*ValueError") as caught:
        decode_envelope(body, types=types)
    assert caught.value.reason == "undecodable-args"


@pytest.mark.parametrize("encode", [lambda value: 1 / 0, lambda value: "text"])
def test_an_encoder_that_fails_names_the_argument(encode: Any) -> None:
    types = PayloadTypes()
    types.add(16, Money, encode, Money.from_bytes)
    with pytest.raises(PayloadError, match=r"argument 1 cannot travel.*Money"):
        encode_envelope(envelope(1, Money(1)), types=types)
    with pytest.raises(PayloadError, match="Money"):
        encode_payload(Money(1), types=types)


def test_a_subclass_is_another_class(types: PayloadTypes) -> None:
    with pytest.raises(PayloadError, match="Dear has no wire form"):
        encode_payload(Dear(1), types=types)


@pytest.mark.parametrize("code", [-1, 0, 15, 128])
def test_codes_of_others_are_refused(types: PayloadTypes, code: int) -> None:
    with pytest.raises(UsageError, match="from 16 to 127"):
        types.add(code, Dear, Dear.to_bytes, lambda data: Dear(int(data)))


def test_a_code_and_a_class_have_one_another(types: PayloadTypes) -> None:
    with pytest.raises(UsageError, match="Money has code 16"):
        types.add(16, Dear, Dear.to_bytes, lambda data: Dear(int(data)))
    with pytest.raises(UsageError, match="Money has code 16"):
        types.add(17, Money, Money.to_bytes, Money.from_bytes)


@pytest.mark.parametrize("cls", [Colour, Point, OrderedDict, str, Decimal, dt.datetime])
def test_a_class_that_travels_anyway_is_refused(types: PayloadTypes, cls: type[Any]) -> None:
    with pytest.raises(UsageError, match="anyway"):
        types.add(17, cls, bytes, cls)
