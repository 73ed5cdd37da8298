"""The mailbox: order, bound, timers, descriptors and waking."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

import pykka
import pytest
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from stem_actors.clock import SystemClock
from stem_actors.supervision import Data, Mailbox, MailboxFull
from stem_actors.testing import ManualClock

PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Item(Data):
    number: int


@dataclass(frozen=True, slots=True)
class Control:
    number: int


def mailbox(bound: int = 10) -> Mailbox:
    return Mailbox(SystemClock(), "box", bound)


def got(box: Mailbox, count: int) -> list[Any]:
    return [box.get().message for _ in range(count)]


def in_thread(function: Any) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_messages_come_in_the_order_they_were_put() -> None:
    box = mailbox()
    messages = [Item(1), Control(2), Item(3)]
    for message in messages:
        box.put(Envelope(message))
    assert box.depth() == 3
    assert got(box, 3) == messages
    assert box.empty()


def test_a_full_mailbox_refuses_data_and_takes_control() -> None:
    box = mailbox(bound=2)
    box.put(Envelope(Item(1)))
    box.put(Envelope(Control(2)))
    box.put(Envelope(Item(3)))
    with pytest.raises(MailboxFull, match="Item was not put"):
        box.put(Envelope(Item(4)))
    box.put(Envelope(Control(5)))
    assert got(box, 1) == [Item(1)]
    box.put(Envelope(Item(6)))
    assert got(box, 4) == [Control(2), Item(3), Control(5), Item(6)]


def test_what_is_taken_makes_room() -> None:
    box = mailbox(bound=3)
    for number in range(3):
        box.put(Envelope(Item(number)))
    assert box.take(Item, 2) == [Item(0), Item(1)]
    box.put(Envelope(Item(3)))
    box.put(Envelope(Item(4)))
    with pytest.raises(MailboxFull):
        box.put(Envelope(Item(5)))


def test_a_stop_jumps_the_queue() -> None:
    box = mailbox()
    box.after(0, Control(0))
    box.put(Envelope(Item(1)))
    box.put(Envelope(_ActorStop()))
    assert box.take(Item, 9) == []
    assert type(box.get().message) is _ActorStop


def test_take_ends_at_another_type_and_at_an_ask() -> None:
    box = mailbox()
    for envelope in (Envelope(Item(1)), Envelope(Item(2)), Envelope(Control(3)), Envelope(Item(4))):
        box.put(envelope)
    assert box.take(Control, 9) == []
    assert box.take(Item, 9) == [Item(1), Item(2)]
    box.get()
    reply: pykka.Future[Any] = pykka.ThreadingFuture()
    box.put(Envelope(Item(5), reply))
    assert box.take(Item, 9) == [Item(4)]
    assert box.get().reply_to is reply


def test_timers_come_by_due_time_and_not_when_cancelled() -> None:
    clock = ManualClock()
    box = Mailbox(clock, "box")
    box.after(2, Control(2))
    cancelled = box.after(1, Control(1))
    box.after(3, Control(3))
    assert cancelled.is_pending
    cancelled.cancel()
    cancelled.cancel()
    assert not box.has_next()
    assert box.next_due() == clock.monotonic() + 2
    clock.advance(10)
    assert got(box, 2) == [Control(2), Control(3)]
    assert box.next_due() is None


def test_many_cancelled_timers_do_not_pile_up() -> None:
    box = Mailbox(ManualClock(), "box")
    keep = box.after(50, Control(0))
    for number in range(10_000):
        box.after(100, Control(number)).cancel()
    assert len(box._timers) < 200
    assert keep.is_pending


def test_neither_timers_nor_messages_starve_the_other() -> None:
    box = Mailbox(ManualClock(), "box")
    box.put(Envelope(Item(1)))
    box.put(Envelope(Item(2)))
    seen: list[Any] = []
    while Item(2) not in seen:
        box.after(0, Control(0))
        seen.append(box.get().message)
        assert len(seen) < 10


def test_get_waits_for_a_put_and_for_a_timer() -> None:
    box = mailbox()
    seen: list[Any] = []
    waiting = in_thread(lambda: seen.extend(got(box, 2)))
    box.put(Envelope(Item(1)))
    box.put(Envelope(Item(2)))
    waiting.join(PATIENCE)
    assert seen == [Item(1), Item(2)]
    box.after(0.01, Control(3))
    assert got(box, 1) == [Control(3)]


def test_a_readable_descriptor_delivers_until_it_is_read() -> None:
    box = mailbox()
    reader, writer = os.pipe()
    try:
        box.watch(reader, Control(1))
        assert not box.has_next()
        os.write(writer, b"x")
        assert got(box, 2) == [Control(1), Control(1)]
        os.read(reader, 1)
        box.after(0.01, Control(2))
        assert got(box, 1) == [Control(2)]
        box.unwatch(reader)
        os.write(writer, b"x")
        assert not box.has_next()
    finally:
        os.close(reader)
        os.close(writer)


def test_a_descriptor_unwatched_between_readiness_and_delivery_is_silent() -> None:
    box = mailbox()
    pairs = [os.pipe() for _ in range(2)]
    for number, (reader, writer) in enumerate(pairs):
        box.watch(reader, Control(number))
        os.write(writer, b"x")
    first = box.get().message
    other = pairs[1 - first.number][0]
    box.unwatch(pairs[first.number][0])
    box.unwatch(other)
    assert not box.has_next()
    for pair in pairs:
        os.close(pair[0])
        os.close(pair[1])


def test_both_directions_of_a_descriptor_are_told_apart_and_a_hang_up_reaches_the_watcher() -> None:
    box = mailbox()
    reader, writer = os.pipe()
    box.watch(writer, Control(1), write=True)
    assert got(box, 1) == [Control(1)]
    box.unwatch(writer, write=True)
    box.watch(reader, Control(2))
    os.close(writer)
    assert got(box, 1) == [Control(2)]
    box.unwatch(reader)
    os.close(reader)


def test_an_owner_that_waits_for_descriptors_is_woken_by_a_put() -> None:
    box = mailbox()
    reader, writer = os.pipe()
    box.watch(reader, Control(0))
    seen: list[Any] = []
    for number in range(20):
        waiting = in_thread(lambda: seen.extend(got(box, 1)))
        box.put(Envelope(Item(number)))
        waiting.join(PATIENCE)
    assert seen == [Item(number) for number in range(20)]
    box.close()
    os.close(reader)
    os.close(writer)


def test_a_busy_owner_still_looks_at_its_descriptors() -> None:
    box = mailbox(bound=1000)
    reader, writer = os.pipe()
    box.watch(reader, Control(0))
    os.write(writer, b"x")
    for number in range(200):
        box.put(Envelope(Item(number)))
    assert Control(0) in got(box, 100)
    box.close()
    os.close(reader)
    os.close(writer)


def test_interruptible_wakes_from_the_putting_thread_and_never_afterwards() -> None:
    box = mailbox()
    woken: list[int] = []
    with box.interruptible(lambda: woken.append(threading.get_ident())):
        assert woken == []
        sender = in_thread(lambda: box.put(Envelope(Item(1))))
        sender.join(PATIENCE)
        assert woken == [sender.ident]
    box.put(Envelope(Item(2)))
    assert len(woken) == 1
    with box.interruptible(lambda: woken.append(0)):
        assert woken[1:] == [0]  # something waits already


def test_a_wake_that_fails_does_not_hurt_the_sender() -> None:
    box = mailbox()

    def wake() -> None:
        raise OSError("already closed")

    with box.interruptible(wake):
        box.put(Envelope(Item(1)))
    assert box.depth() == 1


def test_a_closed_mailbox_refuses_what_waits_and_what_comes() -> None:
    box = mailbox()
    waiting: pykka.Future[Any] = pykka.ThreadingFuture()
    stopping: pykka.Future[Any] = pykka.ThreadingFuture()
    late: pykka.Future[Any] = pykka.ThreadingFuture()
    box.put(Envelope(Item(1)))
    box.put(Envelope(Item(2), waiting))
    box.put(Envelope(_ActorStop(), stopping))
    box.close()
    box.put(Envelope(Item(3), late))
    assert box.depth() == 0
    assert stopping.get(timeout=0) is None
    for reply in (waiting, late):
        with pytest.raises(pykka.ActorDeadError):
            reply.get(timeout=0)


@pytest.mark.parametrize("with_descriptors", [False, True])
def test_no_message_is_lost_or_doubled_when_many_put_at_once(with_descriptors: bool) -> None:
    box = Mailbox(SystemClock(), "box", 10_000)
    reader, writer = os.pipe()
    if with_descriptors:
        box.watch(reader, Control(-1))
    each, senders = 1000, 4

    def send(sender: int) -> None:
        for number in range(each):
            box.put(Envelope(Item(sender * each + number)))

    threads = [threading.Thread(target=send, args=(sender,), daemon=True) for sender in range(senders)]
    for thread in threads:
        thread.start()
    seen = [message.number for message in got(box, each * senders)]
    assert sorted(seen) == list(range(each * senders))
    for sender in range(senders):
        assert [number for number in seen if number // each == sender] == list(range(sender * each, (sender + 1) * each))
    box.close()
    os.close(reader)
    os.close(writer)
