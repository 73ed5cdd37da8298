"""What is written can be read again, and whatever is read that nobody wrote is malformed and nothing else."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_actors.codecs.msgpack import decode_envelope, decode_payload, encode_envelope, encode_payload
from stem_actors.errors import MalformedMessage
from stem_actors.model.delivery import State, pack_state, unpack_state
from stem_actors.model.envelope import Envelope

texts = st.text(max_size=20)
words = st.text(min_size=1, max_size=20)
zones = st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=-5))])
moments = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2500, 1, 1), timezones=zones)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=20)
    | moments
    | st.decimals(allow_nan=False)
    | st.uuids()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
milliseconds = st.integers(0, 2**42).map(lambda number: number / 1000)
envelopes = st.builds(
    Envelope,
    st.just(1),
    words,
    words,
    st.lists(values, max_size=4),
    st.dictionaries(texts, values, max_size=3),
    st.dictionaries(texts, texts, max_size=3),
    milliseconds,
    st.none() | milliseconds,
    st.integers(0, 9),
    st.integers(0, 2**31),
    st.none() | milliseconds,
    words,
    st.dictionaries(texts, values, max_size=3),
)
counters = st.integers(0, 2**40)
states = st.builds(
    State,
    counters,
    counters,
    st.lists(texts, max_size=5).map(tuple),
    counters,
    st.none() | milliseconds,
    counters,
    st.none() | milliseconds,
    counters,
    counters,
    st.dictionaries(texts, st.integers(0, 2**31), max_size=3),
)


@given(envelopes)
def test_an_envelope_survives_the_wire(envelope: Envelope) -> None:
    assert decode_envelope(encode_envelope(envelope)) == envelope


@given(values)
def test_a_payload_survives_the_wire(value: Any) -> None:
    assert decode_payload(encode_payload(value)) == value


@given(states)
def test_a_state_survives_the_wire(state: State) -> None:
    assert unpack_state(pack_state(state)) == state


def test_nobody_reads_a_fresh_state_out_of_many_bytes() -> None:
    assert pack_state(State()) == b""
    assert unpack_state(b"") == State()


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts | st.binary(max_size=9)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=9))
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999)),
    lambda inner: st.lists(inner, max_size=12)
    | st.dictionaries(st.integers(-9, 9) | texts | st.binary(max_size=3), inner, max_size=3),
)  # fmt: skip


@given(st.data())
def test_garbage_is_malformed_and_nothing_else(data: st.DataObject) -> None:
    raw = data.draw(st.binary(max_size=100) | anything.map(msgpack.packb))
    for decode in (decode_envelope, decode_payload, unpack_state):
        try:
            decode(raw)
        except MalformedMessage:
            pass


@given(envelopes, st.integers(0, 12), anything)
def test_a_message_with_one_field_replaced_is_read_or_malformed(envelope: Envelope, field: int, value: Any) -> None:
    fields = msgpack.unpackb(encode_envelope(envelope), timestamp=1)
    fields[field] = value
    try:
        read = decode_envelope(msgpack.packb(fields))
    except MalformedMessage:
        return
    assert all(isinstance(key, str) for key in read.kwargs)
    assert isinstance(read.name, str)


@given(states, st.integers(0, 9), anything)
def test_a_state_with_one_field_replaced_is_read_or_malformed(state: State, field: int, value: Any) -> None:
    fields = list(msgpack.unpackb(pack_state(state._replace(attempt=1)), strict_map_key=False))
    fields[field] = value
    try:
        read = unpack_state(msgpack.packb(fields))
    except MalformedMessage:
        return
    pack_state(read.handed_out().died("x").lapsed().retried().replayed(1.0))  # what is read can be used and written


@pytest.mark.parametrize("cut", [1, 7, 20])
def test_a_message_cut_short_is_malformed(cut: int) -> None:
    envelope = Envelope(1, "i", "n", [1], {}, {}, 1.0, None, 5, 3, None, "q", {})
    with pytest.raises(MalformedMessage):
        decode_envelope(encode_envelope(envelope)[:-cut])
