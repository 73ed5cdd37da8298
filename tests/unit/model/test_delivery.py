from __future__ import annotations

import msgpack
import pytest

from stem_actors.errors import MalformedMessage
from stem_actors.model.delivery import State, pack_state, unpack_state
from tests.unit.model.values import delivery_of

STATE = State(2, 7, ("signal 9",), 1, 1000.5, 3, 2000.25, 1, 4, {"max_retries": 5})


def test_a_hand_out_is_counted_and_ends_the_wait() -> None:
    assert STATE.handed_out() == STATE._replace(delivery_count=8, not_before=None)


def test_a_retry_counts_the_attempt_and_clears_lapses() -> None:
    assert STATE.retried({"stem.timeLimitMs": 5}) == STATE._replace(
        attempt=3, lapses=0, overrides={"max_retries": 5, "stem.timeLimitMs": 5}
    )


def test_deaths_lapses_and_hand_backs_move_their_own_counter_only() -> None:
    assert STATE.died("exit code 3") == STATE._replace(deaths=("signal 9", "exit code 3"))
    assert STATE.lapsed() == STATE._replace(lapses=2)
    assert STATE.handed_back() == STATE._replace(hand_backs=5)


def test_a_replay_keeps_attempts_and_hand_outs_and_forgives_the_rest() -> None:
    assert STATE.replayed(9.0) == State(2, 7, (), 0, None, 4, 9.0, 2, 0, {"max_retries": 5})
    assert delivery_of(STATE.replayed(9.0)).retries_left == 5


def test_a_state_survives_the_wire_with_times_in_milliseconds() -> None:
    assert unpack_state(pack_state(STATE)) == STATE
    assert msgpack.unpackb(pack_state(STATE))[4] == 1_000_500


def test_a_fresh_state_takes_no_bytes() -> None:
    assert pack_state(State()) == b""
    assert unpack_state(b"") == State()


def test_fields_that_later_writers_append_are_not_read() -> None:
    assert unpack_state(msgpack.packb([*msgpack.unpackb(pack_state(STATE)), "new"])) == STATE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, "1"),
        (0, -1),
        (1, 2**64 - 1),
        (2, 0),
        (2, [1]),
        (3, None),
        (4, "soon"),
        (4, float("nan")),
        (6, 2**64 - 1),
        (8, 1.5),
        (9, []),
        (9, {"max_retries": "many"}),
    ],
)
def test_a_field_that_nobody_of_us_wrote_is_malformed(field: int, value: object) -> None:
    fields = list(msgpack.unpackb(pack_state(STATE)))
    fields[field] = value
    with pytest.raises(MalformedMessage):
        unpack_state(msgpack.packb(fields))


@pytest.mark.parametrize(
    "raw", [b"\xc1", b"\x90", b"\x01", msgpack.packb([0, 0]), pack_state(STATE)[:-1], pack_state(STATE) + b"\x00"]
)
def test_garbage_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedMessage):
        unpack_state(raw)


def test_retries_left_is_never_negative() -> None:
    assert [delivery_of(State(attempt=attempt)).retries_left for attempt in (0, 2, 3, 9)] == [3, 1, 0, 0]
