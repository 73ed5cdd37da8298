"""Stores in front of other stores: all is passed on, and a subclass changes what it has come for.

Every method of a port is named here once for all of them: what is added to the port is added here, and all have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stem_actors.model.delivery import Handout, Lease
from stem_actors.model.record import Settlement
from stem_actors.model.uniqueness import HeldClaim
from stem_actors.ports import Answer, Broker, DeadLetterPage, DeadTask, Intake, Message, QueueDepth, Swept

__all__ = ["ForwardingBroker", "ForwardingIntake"]


class ForwardingIntake:
    """An `Intake` in front of another, `inner`."""

    def __init__(self, inner: Intake) -> None:
        self.inner = inner

    def receive(self, limit: int, wait: float) -> list[Handout]:
        return self.inner.receive(limit, wait)

    def interrupt(self) -> None:
        self.inner.interrupt()

    def close(self) -> None:
        self.inner.close()


class ForwardingBroker:
    """A `Broker` in front of another, `inner`."""

    def __init__(self, inner: Broker) -> None:
        self.inner = inner

    def publish(self, sender: str, number: int, messages: Sequence[Message]) -> Mapping[str, str]:
        return self.inner.publish(sender, number, messages)

    def open_intake(self, queues: Sequence[str], holder: str) -> Intake:
        return self.inner.open_intake(queues, holder)

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        return self.inner.settle(settlements)

    def extend(self, leases: Sequence[Lease]) -> list[Answer]:
        return self.inner.extend(leases)

    def held(self, holder: str) -> list[Handout]:
        return self.inner.held(holder)

    def mark_started(self, lease: Lease) -> Answer:
        return self.inner.mark_started(lease)

    def end_claims(self, leases: Sequence[Lease]) -> list[Answer]:
        return self.inner.end_claims(leases)

    def claims(self, key: str, queue: str | None = None) -> list[HeldClaim]:
        return self.inner.claims(key, queue)

    def free_claim(self, queue: str, key: str) -> bool:
        return self.inner.free_claim(queue, key)

    def sweep(self) -> Swept:
        return self.inner.sweep()

    def depths(self, queues: Sequence[str] | None = None) -> list[QueueDepth]:
        return self.inner.depths(queues)

    def purge(self, queue: str, dead_letters: bool = False) -> int:
        return self.inner.purge(queue, dead_letters)

    def dead_letters(self, queue: str, limit: int = 50, offset: int = 0, since: float | None = None) -> DeadLetterPage:
        return self.inner.dead_letters(queue, limit, offset, since)

    def dead_letter(self, queue: str, task_id: str) -> DeadTask | None:
        return self.inner.dead_letter(queue, task_id)

    def replay_dead_letters(
        self,
        queue: str,
        limit: int = 50,
        since: float | None = None,
        ids: Sequence[str] | None = None,
        delay: float = 0.0,
        dry_run: bool = False,
    ) -> list[DeadTask]:
        return self.inner.replay_dead_letters(queue, limit, since, ids, delay, dry_run)

    def purge_dead_letters(
        self, queue: str, limit: int | None = None, since: float | None = None, ids: Sequence[str] | None = None
    ) -> int:
        return self.inner.purge_dead_letters(queue, limit, since, ids)

    def now(self) -> float:
        return self.inner.now()

    def close(self) -> None:
        self.inner.close()
