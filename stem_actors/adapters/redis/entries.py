"""What an entry of a stream holds, read from what the server returns. The Lua side of it is `scripts/common.lua`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stem_actors.model.delivery import Handout, Lease, State
from stem_actors.model.lapse import counted, readable

__all__ = ["Entry", "handout", "read_entry", "split_token"]

CLAIMS = "*"
_FIRST = counted(b"")


class Entry(NamedTuple):
    """A message as it is stored. `visibility` None: the broker's; `handouts`: those that `state` does not count.

    `claims`: it holds a key until its end.
    """

    id: str
    visibility: float | None
    is_named: bool
    handouts: int
    state: bytes
    body: bytes
    sig: bytes | None
    claims: bool = False

    def counted_state(self, more: int) -> State | None:
        """Its state with `more` hand-outs than are stored; None when it cannot be read."""
        handouts = self.handouts + more
        if not self.state and handouts == 1:
            return _FIRST
        state = readable(self.state)
        if state is None or not handouts:
            return state
        return state._replace(delivery_count=state.delivery_count + handouts, not_before=None)


def read_entry(fields: Sequence[bytes], stand_in: str) -> Entry:
    """Read the fields of an entry. Those that somebody else wrote become one whose state cannot be read, named `stand_in`."""
    try:
        known = dict(zip(fields[::2], fields[1::2], strict=True))
        _, visibility, named, handouts, task_id = known[b"h"].split(b"\n", 4)
        return Entry(
            task_id.decode(),
            int(visibility) / 1000 if visibility else None,
            named == b"1",
            int(handouts),
            known.get(b"s", b""),
            known[b"b"],
            known.get(b"g"),
            b"u" in known,
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        body = fields[1] if len(fields) == 2 else b"\n".join(fields)
        return Entry(stand_in, None, False, 0, b"\xc1", body, None)  # a byte that msgpack never uses


def handout(
    queue: str, lane: str, entry_id: bytes, fields: Sequence[bytes], holder: str, usual: float, asked_at: float, age: float = 0.0
) -> Handout:
    """A delivery as its holder gets it. `age`: how long ago it was handed out or extended."""
    if len(fields) == 4 and fields[0] == b"h" and fields[2] == b"b":  # by far the most frequent: never handed out, unsigned
        header = fields[1].split(b"\n", 4)
        if len(header) == 5 and header[1:4] == [b"", b"", b"0"]:
            token = f"{lane} {entry_id.decode()}"
            lease = Lease(token, holder, queue, usual, asked_at + usual - age)
            return Handout(lease, header[4].decode(errors="replace"), fields[3], _FIRST)
    token = f"{lane} {entry_id.decode()}"
    entry = read_entry(fields, token)
    if entry.is_named or entry.claims:
        token = f"{token} {CLAIMS if entry.claims else ''}{entry.id if entry.is_named else ''}"
    lasting = usual if entry.visibility is None else entry.visibility
    lease = Lease(token, holder, queue, lasting, asked_at + lasting - age)
    return Handout(lease, entry.id, entry.body, entry.counted_state(1), entry.sig)


def split_token(token: int | str) -> tuple[str, str, str]:
    """Lane, entry id, and the task's id where its producer chose it, else nothing; `CLAIMS` before that where it holds a key."""
    lane, _, rest = str(token).partition(" ")
    entry_id, _, name = rest.partition(" ")
    return lane, entry_id, name
