"""Settlements of one holder in one queue, put together as `scripts/settle.lua` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

import msgpack

from stem_actors.adapters.redis.connection import Call, Script
from stem_actors.adapters.redis.entries import split_token
from stem_actors.adapters.redis.keys import LANES, Keys
from stem_actors.adapters.redis.results import listed, packed_record
from stem_actors.model.delivery import pack_state
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Release, Retry
from stem_actors.model.record import Settlement, TaskRecord

__all__ = ["SettleBatch", "bounds"]


class _Lane:
    """What there is for one stream: nearly all are plain acks, which take the short way."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.recorded: list[Any] = []  # id and record in turn
        self.recorded_at: list[int] = []
        self.plain: list[str] = []
        self.plain_at: list[int] = []


class SettleBatch:
    """Filled by one thread, sent once. `has_twins`: a lease may come twice, so the order counts and nothing is moved."""

    def __init__(self, keys: Keys, queue: str, holder: str, ttl_ms: int, has_twins: bool) -> None:
        self._keys = keys
        self._queue = queue
        self._holder = holder
        self._ttl_ms = ttl_ms
        self._has_twins = has_twins
        self._lanes: dict[str, _Lane] = {}
        self._keys_of_acks: dict[str, list[str]] = {}
        self._others: list[tuple[int, list[Any], str]] = []  # place, arguments, key of the record or nothing
        self._records: list[TaskRecord] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, at: int, settlement: Settlement) -> None:
        """Take one more. Raises TypeError, ValueError or OverflowError, and takes nothing, where it has no stored form."""
        (token, _, _, _, _), verdict, _, record = settlement
        lane_name, entry_id, name = split_token(token)
        if not self._ttl_ms:
            record = None
        packed = None if record is None else packed_record(record)
        key = "" if record is None else self._keys.result(record.id)
        is_plain = type(verdict) is Ack and not name and not self._has_twins
        item = [] if is_plain else _item(settlement, lane_name, entry_id, name, packed)
        lane = self._lanes.get(lane_name)
        if lane is None:
            lane = self._lanes[lane_name] = _Lane()
            self._keys_of_acks[lane_name] = []
        lane.ids.append(entry_id)
        if not is_plain:
            self._others.append((at, item, key))
        elif packed is None:
            lane.plain.append(entry_id)
            lane.plain_at.append(at)
        else:
            lane.recorded += (entry_id, packed)
            lane.recorded_at.append(at)
            self._keys_of_acks[lane_name].append(key)
        if record is not None:
            self._records.append(record)
        self._count += 1

    def call(self, given: str) -> Call:
        """The script with its arguments."""
        if not self._has_twins:
            self._sort_released()
        arguments: list[Any] = [given, self._holder, self._ttl_ms, listed(self._records), len(self._lanes)]
        keys = [self._keys.meta(self._queue), self._keys.names, self._keys.results]
        for name, lane in self._lanes.items():
            arguments += (name, *bounds(lane.ids), len(lane.recorded_at), *lane.recorded, len(lane.plain), *lane.plain)
            keys += self._keys_of_acks[name]
        arguments.append(len(self._others))
        for _, item, key in self._others:
            arguments += item
            if key:
                keys.append(key)
        return Call(Script.named("settle"), keys, arguments)

    def places(self) -> list[int]:
        """Where each answer of the script belongs."""
        lanes = [at for lane in self._lanes.values() for at in (*lane.recorded_at, *lane.plain_at)]
        return lanes + [at for at, _, _ in self._others]

    def _sort_released(self) -> None:
        """What is released together comes back in the order in which it was handed out."""
        places = [place for place, (_, item, _) in enumerate(self._others) if item[0] == "R"]
        ordered = sorted((self._others[place] for place in places), key=lambda other: _reading_order(*other[1][1:3]))
        for place, other in zip(places, ordered, strict=True):
            self._others[place] = other


def _item(settlement: Settlement, lane: str, entry_id: str, name: str, packed: bytes | None) -> list[Any]:
    """One settlement that takes the long way."""
    state = b"" if settlement.state is None else pack_state(settlement.state)
    item: list[Any] = ["", lane, entry_id, name, "0" if packed is None else "1"]
    match settlement.verdict:
        case Ack():
            item[0] = "A"
        case Release():
            item[0] = "R"
            item.append(state)
        case Defer(delay) | Retry(delay):
            item[0] = "D"
            item += (round(delay * 1000) if delay > 0 else 0, state)
        case DeadLetter(reason, meta):
            item[0] = "X"
            item += (reason.encode(), msgpack.packb(dict(meta)), state)
        case _:
            assert_never(settlement.verdict)
    if packed is not None:
        item.append(packed)
    return item


def bounds(ids: Sequence[str]) -> tuple[str, str]:
    """The lowest and the highest of these entry ids. Those of one length compare as texts."""
    lengths = set(map(len, ids))
    if len(lengths) == 1:
        return min(ids), max(ids)
    ends: list[str] = []
    for length in lengths:
        alike = [each for each in ids if len(each) == length]
        ends += (min(alike), max(alike))
    return min(ends, key=_number), max(ends, key=_number)


def _number(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def _reading_order(lane: str, entry_id: str) -> tuple[int, tuple[int, int]]:
    return LANES.index(lane) if lane in LANES else len(LANES), _number(entry_id)
