"""What the broker does at most: its own calls, one after the other, with nothing executed, recorded or renewed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from stem_actors.clock import Clock
from stem_actors.codecs.msgpack import encode_envelope
from stem_actors.model.delivery import Handout
from stem_actors.model.envelope import WIRE_VERSION, Envelope
from stem_actors.model.ids import new_task_id
from stem_actors.model.outcome import Ack
from stem_actors.model.record import Settlement
from stem_actors.ports import Message, Stores

__all__ = ["claim_and_settle", "hops", "publish_bulk", "publish_singly"]

_QUEUE = "raw"
_HOLDER = "raw"
_BULK = 1000  # messages in one publication, as the client sends them
_CLAIM = 200  # deliveries in one claim and one settlement


def publish_bulk(stores: Stores, clock: Clock, count: int) -> float:
    """Messages a second, 1,000 to a publication."""
    messages = _messages(count, None)
    began = clock.monotonic()
    _publish(stores, messages)
    rate = count / (clock.monotonic() - began)
    stores.broker.purge(_QUEUE)
    return rate


def publish_singly(stores: Stores, clock: Clock, count: int) -> float:
    """Messages a second, one to a publication, each durable before the next."""
    messages, sender = _messages(count, None), new_task_id()
    began = clock.monotonic()
    for number, message in enumerate(messages, 1):
        stores.broker.publish(sender, number, (message,))
    rate = count / (clock.monotonic() - began)
    stores.broker.purge(_QUEUE)
    return rate


def claim_and_settle(stores: Stores, clock: Clock, count: int, ballast: str | None) -> float:
    """Deliveries a second, claimed and deleted 200 at a time."""
    broker = stores.broker
    _publish(stores, _messages(count, ballast))
    intake = broker.open_intake([_QUEUE], _HOLDER)
    try:
        left, began = count, clock.monotonic()
        while left > 0:
            handouts = intake.receive(_CLAIM, 1.0)
            broker.settle([Settlement(handout.lease, Ack()) for handout in handouts])
            left -= len(handouts)
        return count / (clock.monotonic() - began)
    finally:
        intake.close()


def hops(stores: Stores, clock: Clock, count: int) -> list[float]:
    """Seconds from each publication until a thread that waits for it has it in hand, one at a time."""
    broker, arrived, taken_at = stores.broker, threading.Semaphore(0), [0.0]
    intake = broker.open_intake([_QUEUE], _HOLDER)

    def receive() -> None:
        for _ in range(count):
            handouts: list[Handout] = []
            while not handouts:
                handouts = intake.receive(1, 1.0)
            taken_at[0] = clock.monotonic()
            broker.settle([Settlement(handout.lease, Ack()) for handout in handouts])
            arrived.release()

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    seconds, sender = [], new_task_id()
    for number, message in enumerate(_messages(count, None), 1):
        sent_at = clock.monotonic()
        broker.publish(sender, number, (message,))
        arrived.acquire()
        seconds.append(taken_at[0] - sent_at)
    thread.join()
    intake.close()
    return seconds


def _publish(stores: Stores, messages: Sequence[Message]) -> None:
    sender = new_task_id()
    for number, start in enumerate(range(0, len(messages), _BULK), 1):
        stores.broker.publish(sender, number, messages[start : start + _BULK])


def _messages(count: int, ballast: str | None) -> list[Message]:
    """As the client makes them of the benchmark's tasks."""
    return [_message(number, (number,) if ballast is None else (number, ballast)) for number in range(count)]


def _message(number: int, arguments: Sequence[object]) -> Message:
    task_id = new_task_id()
    envelope = Envelope(WIRE_VERSION, task_id, "stem.bench.noop", arguments, {}, {}, float(number), None, 0, 0, None, _QUEUE, {})
    return Message(task_id, _QUEUE, 0, encode_envelope(envelope, 1 << 20))
