"""What stands before and beside a change: choosing dead letters, asking, the audit log."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest

from stem_actors.adapters import open_stores
from stem_actors.config import Settings
from stem_actors.errors import UsageError
from stem_actors.model.outcome import DeadLetter
from stem_actors.model.record import Settlement
from stem_actors.ports import Message, Stores
from stem_actors.testing import ManualClock
from stem_cli import audit, dlq
from stem_cli.confirmation import confirm


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stores(clock: ManualClock) -> Iterator[Stores]:
    opened = open_stores("memory://", clock=clock)
    yield opened
    opened.close()


def bury(stores: Stores, *ids: str) -> None:
    """Dead letters that all die at one moment."""
    stores.broker.publish(ids[0], 1, [Message(task_id, "q", 0, b"") for task_id in ids])
    intake = stores.broker.open_intake(["q"], "hand")
    handouts = intake.receive(len(ids), 0.0)
    intake.close()
    stores.broker.settle([Settlement(handout.lease, DeadLetter("poison", {})) for handout in handouts])


def test_dead_letters_are_read_oldest_first_however_many_died_at_once(
    stores: Stores, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dlq, "_BATCH", 4)
    wanted = []
    for moment in range(3):
        ids = [f"{moment}-{number:02}" for number in range(11)]
        bury(stores, *ids)
        wanted.append(set(ids))
        clock.advance(1.0)
    found = [entry.id for entry in dlq.oldest_first(stores.broker, "q", None, None)]
    assert len(found) == 33
    assert [set(found[start : start + 11]) for start in (0, 11, 22)] == wanted
    later = dlq.oldest_first(stores.broker, "q", clock.now() - 1.5, None)
    assert {entry.id for entry in later} == wanted[2]


@pytest.mark.parametrize("since_age", [None, 0.5, 1.5, 2.5, 10.0])
def test_dead_letters_since_a_time_are_counted(stores: Stores, clock: ManualClock, since_age: float | None) -> None:
    for moment in range(3):
        bury(stores, *(f"{moment}-{number}" for number in range(5)))
        clock.advance(1.0)
    since = None if since_age is None else clock.now() - since_age
    assert dlq._count(stores.broker, "q", since) == {None: 15, 0.5: 0, 1.5: 5, 2.5: 10, 10.0: 15}[since_age]
    assert dlq._count(stores.broker, "other", since) == 0


# ---------------------------------------------------------------- asking


def test_who_said_yes_is_not_asked() -> None:
    confirm("remove everything", is_told=True)
    with pytest.raises(UsageError, match="this would remove everything; say --yes"):
        confirm("remove everything", is_told=False)


@pytest.mark.parametrize(("answer", "said"), [("y", "done"), ("YES", "done"), ("n", "not confirmed"), ("", "not confirmed")])
def test_a_person_at_a_terminal_is_asked(answer: str, said: str) -> None:
    code = (
        "from stem_cli.confirmation import confirm\n"
        "try: confirm('remove 3 tasks', False); print('done')\n"
        "except Exception as error: print(error)"
    )
    ours, theirs = pty.openpty()
    path = ":".join(sys.path)
    child = subprocess.Popen([sys.executable, "-c", code], env={"PYTHONPATH": path}, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    while b"[y/N]" not in printed:
        printed += os.read(ours, 4096)
    os.write(ours, f"{answer}\n".encode())
    assert child.wait(30) == 0
    printed += os.read(ours, 4096)
    os.close(ours)
    assert b"Remove 3 tasks? [y/N] " in printed
    assert said.encode() in printed


# ---------------------------------------------------------------- audit log


def test_the_audit_log_names_who_what_and_how_many(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    audit.note(Settings(), "dlq purge", "mail", 3, since=None, ids=["a"])
    (record,) = caplog.records
    data = record.__dict__
    assert (record.name, data["action"], data["queue"], data["count"], data["ids"]) == (
        "stem.audit",
        "dlq purge",
        "mail",
        3,
        ["a"],
    )
    assert data["who"].endswith("(sudo by ada)")
    assert "since" not in data
