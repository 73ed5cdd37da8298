"""`Broker` in memory. Written to be read: it is what the other brokers are compared with in property tests."""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, assert_never

from stem_actors.adapters.memory.results import current_record, store_record
from stem_actors.adapters.memory.space import Dead, Held, Space, Waiting
from stem_actors.errors import DuplicateTaskId
from stem_actors.model.delivery import Handout, Lease, State
from stem_actors.model.envelope import HIGHEST_PRIORITY, clamp_priority
from stem_actors.model.lapse import (
    LOWEST_FIRST_EVERY,
    NAME_KEPT,
    POISON,
    SENDER_KEPT,
    Poisoned,
    Retention,
    Returned,
    after_lapse,
    poison_record,
    replay_record,
    swept,
)
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Release, Retry
from stem_actors.model.record import Settlement, TaskRecord
from stem_actors.model.uniqueness import HeldClaim, contend, is_kept_out
from stem_actors.ports import Answer, DeadLetterPage, DeadTask, Done, Intake, Message, QueueDepth, Stale, Swept

__all__ = ["MemoryBroker"]


class MemoryBroker:
    """A `Broker`. Any thread."""

    def __init__(self, space: Space, retention: Retention) -> None:
        self._space = space
        self._retention = retention
        self._intakes: list[MemoryIntake] = []

    def now(self) -> float:
        return self._space.clock.now()

    # ------------------------------------------------------------ producers

    def publish(self, sender: str, number: int, messages: Sequence[Message]) -> Mapping[str, str]:
        space = self._space
        with space.changed:
            now = self.now()
            last, _ = space.senders.get(sender, (0, 0.0))
            if number <= last:
                return space.answers.get(sender, {}) if number == last else {}
            asked = [(message.id, message.queue, message.claim) for message in messages if message.claim is not None]
            places = {(queue, claim.key) for _, queue, claim in asked}
            held = {place: space.claims[place] for place in places if place in space.claims}
            others = contend(asked, held, now)
            stored = [message for message in messages if not is_kept_out(message.id, message.claim, others)]
            self._take_names([message.id for message in stored if message.is_chosen_id], now)
            space.senders[sender] = (number, now)
            space.answers[sender] = others
            space.claims.update(held)
            for message in stored:
                level = HIGHEST_PRIORITY - clamp_priority(message.priority)
                key = message.claim.key if message.claim is not None and message.claim.lasts is None else None
                waiting = Waiting(
                    *(message.queue, level, message.id, message.is_chosen_id, message.visibility_timeout, now),
                    *(State(), message.sig, message.body, key),
                )
                self._put(waiting, message.delay, now)
            space.changed.notify_all()
            return others

    def _take_names(self, ids: Sequence[str], now: float) -> None:
        names = self._space.names
        for task_id in ids:
            ended_at = names.get(task_id, float("-inf"))
            if ended_at is None or ended_at > now - NAME_KEPT or ids.count(task_id) > 1:
                raise DuplicateTaskId(
                    f"the id {task_id!r} belongs to a task that is pending or ended less than an hour ago; nothing was enqueued."
                )
        names.update(dict.fromkeys(ids))

    def _put(self, message: Waiting, delay: float, now: float) -> None:
        """Behind all that waits at its level, now or in `delay` seconds."""
        if delay > 0:
            insort(self._space.delayed, (now + delay, message), key=itemgetter(0))
        else:
            self._level(message).append(message._replace(since=now))

    def _put_first(self, messages: Sequence[Waiting]) -> None:
        """Before all that waits at their level, in the order given."""
        for message in reversed(messages):
            self._level(message).appendleft(message)

    def _level(self, message: Waiting) -> deque[Waiting]:
        return self._space.ready[message.queue].setdefault(message.level, deque())

    # ------------------------------------------------------------ consumers

    def open_intake(self, queues: Sequence[str], holder: str) -> Intake:
        intake = MemoryIntake(self._space, list(dict.fromkeys(queues)), holder, self._retention.visibility_timeout)
        self._intakes.append(intake)
        return intake

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        with self._space.changed:
            now = self.now()
            released: list[tuple[int | str, Waiting]] = []
            answers = [self._settle(settlement, released, now) for settlement in settlements]
            self._put_first([message for _, message in sorted(released, key=itemgetter(0))])
            self._space.changed.notify_all()
        return answers

    def _settle(self, settlement: Settlement, released: list[tuple[int | str, Waiting]], now: float) -> Answer:
        held = self._held(settlement.lease)
        if held is None:
            return Stale()
        del self._space.leased[settlement.lease.token]
        message = held.message if settlement.state is None else held.message._replace(state=settlement.state)
        match settlement.verdict:
            case Ack():
                self._end_name(message, now)
                self._end_claim(message)
            case Release():
                released.append((settlement.lease.token, message))
            case Defer(delay) | Retry(delay):
                self._put(message, delay, now)
            case DeadLetter(reason, meta):
                self._bury(message, reason, meta, now)
            case _:
                assert_never(settlement.verdict)
        self._record(settlement.record, now)
        return Done()

    def _held(self, lease: Lease) -> Held | None:
        held = self._space.leased.get(lease.token)
        return held if held is not None and held.holder == lease.holder else None

    def _record(self, record: TaskRecord | None, now: float) -> None:
        if record is not None and self._retention.result_ttl is not None:
            store_record(self._space, record, now, self._retention.result_ttl)

    def _bury(self, message: Waiting, reason: str, meta: Mapping[str, Any], now: float) -> None:
        self._space.dead[message.queue].append(Dead(message, reason, dict(meta), now))
        self._end_name(message, now)
        self._end_claim(message)

    def _end_name(self, message: Waiting, now: float) -> None:
        if message.is_named:
            self._space.names[message.id] = now

    def _end_claim(self, message: Waiting) -> None:
        if message.claim is not None:
            held = self._space.claims.get((message.queue, message.claim))
            if held is not None and held.owner == message.id:
                del self._space.claims[message.queue, message.claim]

    def extend(self, leases: Sequence[Lease]) -> list[Answer]:
        answers: list[Answer] = []
        with self._space.changed:
            for lease in leases:
                held = self._held(lease)
                if held is not None:
                    held.ends = self.now() + lease.visibility
                answers.append(Stale() if held is None else Done())
        return answers

    def held(self, holder: str) -> list[Handout]:
        asked_at = self._space.clock.monotonic()
        with self._space.changed:
            return [
                _handout(token, held, self._retention.visibility_timeout, asked_at + held.ends - self.now())
                for token, held in self._space.leased.items()
                if held.holder == holder
            ]

    def mark_started(self, lease: Lease) -> Answer:
        with self._space.changed:
            held = self._held(lease)
            if held is None:
                return Stale()
            held.is_started = True
            return Done()

    def end_claims(self, leases: Sequence[Lease]) -> list[Answer]:
        with self._space.changed:
            found = [self._held(lease) for lease in leases]
            for held in found:
                if held is not None:
                    self._end_claim(held.message)
            return [Stale() if held is None else Done() for held in found]

    # ------------------------------------------------------------ sweeping

    def sweep(self) -> Swept:
        space = self._space
        with space.changed:
            now = self.now()
            watch = swept(space.watch, now)
            if watch is None:
                return Swept(skipped=True, next_due=_next_due(space))
            space.watch = watch
            promoted = _promote(space, now)
            lapsed = [token for token, held in space.leased.items() if watch.may_take(self._visibility(held.message), held.ends)]
            fates = [(space.leased[token].message, self._fate(space.leased.pop(token))) for token in lapsed]
            self._put_first([message._replace(state=fate.state) for message, fate in fates if isinstance(fate, Returned)])
            poisoned = [(message, fate) for message, fate in fates if isinstance(fate, Poisoned)]
            for message, fate in poisoned:
                self._bury(message._replace(state=fate.state), POISON, fate.meta, now)
                self._record(poison_record(message.id, message.queue, fate, current_record(space, message.id, now)), now)
            expired = self._forget(now)
            replayed, space.replayed = space.replayed, Counter()
            space.changed.notify_all()
            return Swept(promoted, len(fates) - len(poisoned), len(poisoned), expired, _next_due(space), replayed=replayed)

    def _visibility(self, message: Waiting) -> float:
        return self._retention.visibility_timeout if message.visibility is None else message.visibility

    def _fate(self, held: Held) -> Returned | Poisoned:
        return after_lapse(held.message.state, held.is_started, self._retention.max_deaths)

    def _forget(self, now: float) -> int:
        space = self._space
        space.senders = {name: last for name, last in space.senders.items() if last[1] > now - SENDER_KEPT}
        space.answers = {name: others for name, others in space.answers.items() if others and name in space.senders}
        space.claims = {place: held for place, held in space.claims.items() if held.stands(now)}
        space.names = {name: ended for name, ended in space.names.items() if ended is None or ended > now - NAME_KEPT}
        space.control = [message for message in space.control if message[3] > now]
        before = sum(map(len, space.dead.values()))
        for letters in space.dead.values():
            letters[:] = [letter for letter in letters if letter.dead_at > now - self._retention.dead_letter_ttl]
        return before - sum(map(len, space.dead.values()))

    # ------------------------------------------------------------ operators

    def depths(self, queues: Sequence[str] | None = None) -> list[QueueDepth]:
        space = self._space
        with space.changed:
            ready = {queue: [each for level in levels.values() for each in level] for queue, levels in space.ready.items()}
            inflight = [held.message.queue for held in space.leased.values()]
            delayed = [message.queue for _, message in space.delayed]
            known = {queue for queue, messages in ready.items() if messages} | {
                queue for queue, dead in space.dead.items() if dead
            }
            return [
                QueueDepth(
                    queue,
                    len(ready.get(queue, ())),
                    inflight.count(queue),
                    delayed.count(queue),
                    len(space.dead.get(queue, ())),
                    max((max(0.0, self.now() - message.since) for message in ready.get(queue, ())), default=None),
                )
                for queue in sorted(known.union(inflight, delayed) if queues is None else set(queues))
            ]

    def purge(self, queue: str, dead_letters: bool = False) -> int:
        space = self._space
        with space.changed:
            purged = [message for level in space.ready.pop(queue, {}).values() for message in level]
            purged += [message for _, message in space.delayed if message.queue == queue]
            space.delayed = [(due, message) for due, message in space.delayed if message.queue != queue]
            for message in purged:
                self._end_claim(message)
                if message.is_named:
                    space.names.pop(message.id, None)
            return len(purged) + (self.purge_dead_letters(queue) if dead_letters else 0)

    def claims(self, key: str, queue: str | None = None) -> list[HeldClaim]:
        with self._space.changed:
            now, held = self.now(), self._space.claims.values()
            found = [each for each in held if each.key == key and queue in (None, each.queue) and each.stands(now)]
        return sorted(found)

    def free_claim(self, queue: str, key: str) -> bool:
        with self._space.changed:
            held = self._space.claims.pop((queue, key), None)
            return held is not None and held.stands(self.now())

    def dead_letters(self, queue: str, limit: int = 50, offset: int = 0, since: float | None = None) -> DeadLetterPage:
        limit, offset = max(0, limit), max(0, offset)
        with self._space.changed:
            newest_first = [_dead_task(letter) for letter in reversed(self._selected(queue, since, None))]
        end = offset + limit
        return DeadLetterPage(newest_first[offset:end], end if limit and end < len(newest_first) else None)

    def dead_letter(self, queue: str, task_id: str) -> DeadTask | None:
        with self._space.changed:
            found = self._selected(queue, None, [task_id])
            return _dead_task(found[-1]) if found else None

    def replay_dead_letters(
        self,
        queue: str,
        limit: int = 50,
        since: float | None = None,
        ids: Sequence[str] | None = None,
        delay: float = 0.0,
        dry_run: bool = False,
    ) -> list[DeadTask]:
        with self._space.changed:
            chosen = self._selected(queue, since, ids)[: max(0, limit)]
            if not dry_run:
                self._remove(queue, chosen)
                for letter in chosen:
                    self._revive(letter, delay)
                if chosen:
                    self._space.replayed[queue] += len(chosen)
                self._space.changed.notify_all()
        return [_dead_task(letter) for letter in chosen]

    def _revive(self, letter: Dead, delay: float) -> None:
        now, message = self.now(), letter.message
        if message.is_named:
            self._space.names[message.id] = None
        if message.state is not None:
            state = message.state.replayed(now)
            message = message._replace(state=state)
            before = current_record(self._space, message.id, now)
            self._record(replay_record(message.id, message.queue, state, letter.reason, delay, before), now)
        self._put(message, delay, now)

    def purge_dead_letters(
        self, queue: str, limit: int | None = None, since: float | None = None, ids: Sequence[str] | None = None
    ) -> int:
        with self._space.changed:
            newest_first = self._selected(queue, since, ids)[::-1]
            chosen = newest_first if limit is None else newest_first[: max(0, limit)]
            self._remove(queue, chosen)
        return len(chosen)

    def _selected(self, queue: str, since: float | None, ids: Sequence[str] | None) -> list[Dead]:
        wanted = None if ids is None else set(ids)
        return [
            letter
            for letter in self._space.dead.get(queue, ())
            if (since is None or letter.dead_at >= since) and (wanted is None or letter.message.id in wanted)
        ]

    def _remove(self, queue: str, letters: Sequence[Dead]) -> None:
        gone = set(map(id, letters))
        self._space.dead[queue] = [letter for letter in self._space.dead.get(queue, ()) if id(letter) not in gone]

    def close(self) -> None:
        for intake in self._intakes:
            intake.close()


class MemoryIntake:
    """An `Intake`. Of several queues that hold work each gets an equal share of a fetch, in an order that rotates."""

    def __init__(self, space: Space, queues: list[str], holder: str, visibility: float) -> None:
        self._space = space
        self._queues = queues
        self._holder = holder
        self._visibility = visibility
        self._fetches = 0
        self._is_interrupted = False
        self._is_closed = False

    def receive(self, limit: int, wait: float) -> list[Handout]:
        with self._space.changed:
            found = self._space.wait_for(
                lambda: self._fetch(limit) or self._must_return(wait), wait, lambda: _next_due(self._space)
            )
            return found if isinstance(found, list) else []

    def _must_return(self, wait: float) -> bool:
        """Closed, or interrupted where it would wait."""
        must_return = self._is_closed or (self._is_interrupted and wait > 0)
        if must_return:
            self._is_interrupted = False
        return must_return

    def _fetch(self, limit: int) -> list[Handout]:
        if limit <= 0 or self._is_closed:
            return []
        _promote(self._space, self._space.clock.now())
        queues = [queue for queue in self._queues if any(self._space.ready.get(queue, {}).values())]
        if not queues:
            return []
        self._fetches += 1
        is_lowest_first = self._fetches % LOWEST_FIRST_EVERY == 0
        turn = self._fetches % len(queues)
        taken: list[Waiting] = []
        unsated = []
        for position, queue in enumerate(queues[turn:] + queues[:turn]):
            share = -(-(limit - len(taken)) // (len(queues) - position))
            some = self._take(queue, share, is_lowest_first)
            if len(some) == share:
                unsated.append(queue)
            taken += some
        for queue in unsated:
            taken += self._take(queue, limit - len(taken), False)
        handouts = [self._lease(message) for message in taken]
        if not is_lowest_first:
            levels = {handout.lease.token: message.level for handout, message in zip(handouts, taken, strict=True)}
            handouts.sort(key=lambda handout: levels[handout.lease.token])
        return handouts

    def _take(self, queue: str, limit: int, is_lowest_first: bool) -> list[Waiting]:
        levels = {level: waiting for level, waiting in self._space.ready[queue].items() if waiting}
        order = sorted(levels)
        if is_lowest_first and order:
            order.insert(0, order.pop())
        taken: list[Waiting] = []
        for level in order:
            while levels[level] and len(taken) < limit:
                taken.append(levels[level].popleft())
        return taken

    def _lease(self, message: Waiting) -> Handout:
        state = None if message.state is None else message.state.handed_out()
        lasting = self._visibility if message.visibility is None else message.visibility
        held = Held(message._replace(state=state), self._holder, self._space.clock.now() + lasting)
        token = self._space.next_number()
        self._space.leased[token] = held
        return _handout(token, held, self._visibility, self._space.clock.monotonic() + lasting)

    def interrupt(self) -> None:
        with self._space.changed:
            self._is_interrupted = True
            self._space.changed.notify_all()

    def close(self) -> None:
        with self._space.changed:
            self._is_closed = True
            self._space.changed.notify_all()


def _handout(token: int | str, held: Held, visibility: float, deadline: float) -> Handout:
    message = held.message
    lasting = visibility if message.visibility is None else message.visibility
    return Handout(
        Lease(token, held.holder, message.queue, lasting, deadline), message.id, message.body, message.state, message.sig
    )


def _promote(space: Space, now: float) -> int:
    """What is due joins the tail of its level, in the order in which it fell due. Returns how many."""
    count = 0
    while space.delayed and space.delayed[0][0] <= now:
        _, message = space.delayed.pop(0)
        space.ready[message.queue].setdefault(message.level, deque()).append(message._replace(since=now))
        count += 1
    return count


def _next_due(space: Space) -> float | None:
    return max(0.0, space.delayed[0][0] - space.clock.now()) if space.delayed else None


def _dead_task(letter: Dead) -> DeadTask:
    message = letter.message
    return DeadTask(message.id, message.queue, message.body, message.state, letter.reason, letter.meta, letter.dead_at)
