"""Many values as one parameter, in the binary form that the server reads: `Integers`, `Reals`, `Texts`, `Bytes`.

psycopg can pass lists as they are, looking at every element for its type; here the type is known, and a batch of a thousand
takes a tenth of the time.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

__all__ = ["Bytes", "Integers", "Reals", "Texts", "register"]

_NULL = b"\xff\xff\xff\xff"
_HEAD = struct.Struct(">iiiii")  # dimensions, may hold nulls, element's type, length, lower bound
_LENGTH = struct.Struct(">i").pack


class _Array:
    """Values on their way. `OID` is the array's type, `ELEMENT` that of its elements."""

    OID = ELEMENT = 0
    __slots__ = ("packed",)

    def __init__(self, count: int, elements: bytes) -> None:
        self.packed = (_HEAD.pack(1, 1, self.ELEMENT, count, 1) if count else struct.pack(">iii", 0, 0, self.ELEMENT)) + elements


class Integers(_Array):
    """bigint[]"""

    OID, ELEMENT = 1016, 20
    __slots__ = ()

    def __init__(self, values: Sequence[int]) -> None:
        flat = [8] * (2 * len(values))
        flat[1::2] = values
        try:
            super().__init__(len(values), struct.pack(f">{'iq' * len(values)}", *flat))
        except struct.error as error:
            raise ValueError(f"no whole number of at most 63 bits: {error}") from error


class Reals(_Array):
    """float8[]; None is NULL."""

    OID, ELEMENT = 1022, 701
    __slots__ = ()

    def __init__(self, values: Sequence[float | None]) -> None:
        super().__init__(len(values), b"".join(_NULL if each is None else _REAL(8, each) for each in values))


_REAL = struct.Struct(">id").pack


class Bytes(_Array):
    """bytea[]; None is NULL."""

    OID, ELEMENT = 1001, 17
    __slots__ = ()

    def __init__(self, values: Sequence[bytes | None]) -> None:
        super().__init__(len(values), b"".join([_NULL if each is None else _LENGTH(len(each)) + each for each in values]))


class Texts(_Array):
    """text[]; None is NULL."""

    OID, ELEMENT = 1009, 25
    __slots__ = ()

    def __init__(self, values: Sequence[str | None]) -> None:
        encoded = [None if each is None else each.encode() for each in values]
        packed = b"".join([_NULL if each is None else _LENGTH(len(each)) + each for each in encoded])
        if any(each is not None and b"\0" in each for each in encoded):
            raise ValueError("Postgres takes no text with a NUL character")
        super().__init__(len(values), packed)


@cache
def _dumpers() -> list[tuple[type, Any]]:
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    def dumper(kind: type[_Array]) -> Any:
        class ArrayDumper(Dumper):
            format = Format.BINARY
            oid = kind.OID

            def dump(self, obj: Any) -> bytes:
                packed: bytes = obj.packed
                return packed

        return ArrayDumper

    return [(kind, dumper(kind)) for kind in (Integers, Reals, Texts, Bytes)]


def register(connection: Any) -> None:
    """Let a connection take our arrays."""
    for kind, dumper in _dumpers():
        connection.adapters.register_dumper(kind, dumper)
