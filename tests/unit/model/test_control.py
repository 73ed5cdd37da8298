from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_actors.errors import MalformedMessage
from stem_actors.model import control
from stem_actors.model.control import ControlCommand, ControlReply
from stem_actors.ports import Revocation

COMMAND = ControlCommand("r1", "revoke", ["w1"], {"a": [1, None]}, 1_700_000_000.5)


def test_a_command_survives_the_wire() -> None:
    assert control.decode_command(control.encode_command(COMMAND)) == COMMAND


@pytest.mark.parametrize("error", [None, {"message": "no"}])
def test_a_reply_survives_the_wire(error: dict[str, str] | None) -> None:
    reply = ControlReply("r1", "w1", "ok" if error is None else "error", {"active": 3}, error)
    assert control.decode_reply(control.encode_reply(reply)) == reply


def test_a_revocation_survives_the_wire() -> None:
    revocation = Revocation("t1", True, "because", "me", 1_700_000_000.25, None, 7)
    assert Revocation(**control.unpack_revocation(control.pack_revocation(revocation))) == revocation


def test_a_command_is_for_its_targets_or_for_all() -> None:
    assert COMMAND.is_for("w1")
    assert not COMMAND.is_for("w2")
    assert ControlCommand("r", "ping").is_for("anybody")


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=3), st.lists).map(msgpack.packb))
def test_garbage_is_malformed_and_nothing_else(raw: bytes) -> None:
    for decode in (control.decode_command, control.decode_reply):
        with pytest.raises(MalformedMessage):
            decode(raw)


@pytest.mark.parametrize("field", ["type", "request_id", "targets", "payload", "expires_at"])
def test_a_field_of_the_wrong_type_is_malformed(field: str) -> None:
    message = msgpack.unpackb(control.encode_command(COMMAND))
    with pytest.raises(MalformedMessage):
        control.decode_command(msgpack.packb({**message, field: b"?"}))


def test_a_large_message_is_not_read() -> None:
    with pytest.raises(MalformedMessage) as caught:
        control.decode_command(bytes(1 << 21))
    assert caught.value.reason == "too-large"


@pytest.mark.parametrize("entry", [None, {}, {"task_id": 1}, {**control.pack_revocation(Revocation("t")), "version": "1"}])
def test_what_is_no_revocation_is_malformed(entry: object) -> None:
    with pytest.raises(MalformedMessage):
        control.unpack_revocation(entry)
