"""How values travel for which msgpack has no type of its own: ours (Decimal, UUID), and those an application adds.

Codes 0 to 15 are ours, 16 to 127 the user's. An application's types are its own `PayloadTypes`, handed in wherever bytes are made
or read; a worker, which runs no user code, has none and passes such values on as they are.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

import msgpack

from stem_actors.errors import UsageError

__all__ = ["PayloadTypes", "Undecodable", "from_ext", "to_ext"]

T = TypeVar("T")

_DECIMAL, _UUID = 1, 2
_FIRST, _LAST = 16, 127
_TRAVEL_ALREADY = (int, float, str, bytes, bytearray, memoryview, list, tuple, dict, dt.datetime, Decimal, uuid.UUID, type(None))


class Undecodable(ValueError):
    """A value of a type that is not known here, or that its own decoder refuses."""


class _PayloadType(NamedTuple):
    code: int
    cls: type[Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class PayloadTypes:
    """The types that one application adds. Filled while modules are imported, read afterwards."""

    def __init__(self) -> None:
        self._by_code: dict[int, _PayloadType] = {}
        self._by_class: dict[type[Any], _PayloadType] = {}

    def add(self, code: int, cls: type[T], encode: Callable[[T], bytes], decode: Callable[[bytes], T]) -> None:
        """Let values of exactly this class travel under `code`.

        Raises:
            UsageError: the code is out of range or taken, or the class travels already.
        """
        if not _FIRST <= code <= _LAST:
            raise UsageError(f"a payload type's code is a number from {_FIRST} to {_LAST}, not {code}")
        if code in self._by_code or cls in self._by_class:
            taken = self._by_code.get(code) or self._by_class[cls]
            raise UsageError(
                f"payload type {taken.cls.__qualname__} has code {taken.code} already; each has one, and no other has it"
            )
        if issubclass(cls, _TRAVEL_ALREADY):
            raise UsageError(f"{cls.__qualname__} travels as a {cls.__mro__[-2].__name__} anyway, so it cannot be a payload type")
        self._by_code[code] = self._by_class[cls] = _PayloadType(code, cls, encode, decode)

    def to_ext(self, value: Any) -> msgpack.ExtType:
        """For a packer. Raises `TypeError` for what cannot travel."""
        found = self._by_class.get(type(value))
        if found is None:
            return to_ext(value)
        try:
            data = found.encode(value)
        except Exception as error:  # user code
            raise TypeError(f"{found.cls.__qualname__} could not be encoded: {type(error).__name__}: {error}") from error
        if not isinstance(data, bytes):
            raise TypeError(f"the encoder of {found.cls.__qualname__} returned {type(data).__name__}, not bytes")
        return msgpack.ExtType(found.code, data)

    def from_ext(self, code: int, data: bytes) -> Any:
        """For an unpacker. Raises `Undecodable`."""
        if 0 <= code < _FIRST:
            return from_ext(code, data)
        found = self._by_code.get(code)
        if found is None:
            raise Undecodable(f"payload type {code} is not known here; register it with app.payload_type({code}, …)")
        try:
            return found.decode(data)
        except Exception as error:  # user code
            text = f"the decoder of {found.cls.__qualname__} (payload type {code}) failed: {type(error).__name__}: {error}"
            raise Undecodable(text) from error


def to_ext(value: Any) -> msgpack.ExtType:
    """One of our own types, for a packer. Raises `TypeError` for any other."""
    if isinstance(value, Decimal):
        return msgpack.ExtType(_DECIMAL, str(value).encode())
    if isinstance(value, uuid.UUID):
        return msgpack.ExtType(_UUID, value.bytes)
    if isinstance(value, dt.datetime):
        raise TypeError("a datetime without a time zone is ambiguous; use an aware one")
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} has no wire form")


def from_ext(code: int, data: bytes) -> Any:
    """One of our own types, for an unpacker; any other stays an `ExtType`."""
    if code == _DECIMAL:
        return Decimal(data.decode("ascii"))
    if code == _UUID:
        return uuid.UUID(bytes=data)
    return msgpack.ExtType(code, data)
