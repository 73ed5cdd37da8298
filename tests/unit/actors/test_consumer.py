"""A consumer with a broker that is made up, one message at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from stem_actors.actors import messages as m
from stem_actors.actors.consumer import Consumer
from stem_actors.actors.reconnect import Reconnect
from stem_actors.actors.server_clock import ServerClock
from stem_actors.actors.vitals import Vitals
from stem_actors.codecs.msgpack import decode_delivery, encode_envelope
from stem_actors.errors import BrokerUnavailable
from stem_actors.metrics import Tally
from stem_actors.model.delivery import Handout, Lease, State
from stem_actors.model.envelope import Envelope
from stem_actors.model.outcome import Expired, Rejected
from stem_actors.ports import Broker
from stem_actors.supervision import ChildSpec, StemActor, Stepper, actor
from stem_actors.testing import ManualClock


def handout(token: str, expires_at: float | None = None, body: bytes | None = None) -> Handout:
    envelope = Envelope(1, f"id-{token}", "shop.mail", [], {}, {}, 1.0, expires_at, 5, 3, None, "default", {})
    return Handout(Lease(token, "me#1", "default", 30.0, 1e9), f"id-{token}", body or encode_envelope(envelope), State())


class Store:
    """A broker as far as a consumer goes, and its own intake."""

    def __init__(self) -> None:
        self.waiting: list[Handout] = []
        self.leased: list[Handout] = []
        self.fails = 0
        self.clock = ManualClock()

    def _answer(self) -> None:
        if self.fails:
            self.fails -= 1
            raise BrokerUnavailable("away")

    def open_intake(self, queues: Sequence[str], holder: str) -> Store:
        return self

    def receive(self, limit: int, wait: float) -> list[Handout]:
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        self.leased += taken
        self._answer()
        if not taken:
            self.clock.advance(wait)
        return taken

    def held(self, holder: str) -> list[Handout]:
        self._answer()
        return list(self.leased)

    def now(self) -> float:
        return 1000.0

    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class Pool(StemActor):
    """Keeps what it is told, and asks for leases that it does not know when it is told to."""

    def __init__(self, context: Any, heard: list[Any], before_answer: Callable[[], object]) -> None:
        super().__init__(context)
        self.heard = heard
        self.before_answer = before_answer

    def on_receive(self, message: Any) -> Any:
        self.heard.append(message)
        match message:
            case m.ConsumerStarted():
                self.tell(m.CONSUMER, m.Credit(2))
            case m.Held(tokens):
                known = {each.lease.token for told in self.heard if isinstance(told, m.Deliver) for each in told.deliveries}
                self.before_answer()
                unknown = [token for token in tokens if token not in known]
                if unknown:
                    self.tell(m.CONSUMER, m.Recover(unknown))


class LeavingPool(Pool):
    """Its worker is told to leave as soon as it has work."""

    def on_receive(self, message: Any) -> Any:
        super().on_receive(message)
        if isinstance(message, m.Deliver):
            self.tell(m.CONSUMER, m.StopFetching())
            self.tell(m.CONSUMER, m.Credit(2))


def run(
    store: Store, seconds: float = 5.0, before_answer: Callable[[], object] = lambda: None, pool: type[Pool] = Pool
) -> list[Any]:
    """What the pool is told within some seconds."""
    heard: list[Any] = []
    vitals = Vitals()
    reconnect = Reconnect(m.CONSUMER, "w-1", 30.0, vitals, Tally())

    def consumer(context: Any) -> Consumer:
        broker = cast(Broker, store)
        server_clock = ServerClock(store.clock, broker)
        return Consumer(context, broker, ["default"], "me#1", decode_delivery, reconnect, vitals, server_clock)

    specs = [
        ChildSpec(m.EXECUTOR_POOL, actor(partial(pool, heard=heard, before_answer=before_answer))),
        ChildSpec(m.CONSUMER, actor(consumer)),
    ]
    stepper = Stepper(specs, clock=store.clock)
    end = store.clock.monotonic() + seconds
    stepper.run_until(lambda: store.clock.monotonic() >= end)
    stepper.stop()
    return heard


def delivered(heard: list[Any]) -> list[tuple[list[int | str], bool]]:
    return [([each.lease.token for each in told.deliveries], told.recovered) for told in heard if isinstance(told, m.Deliver)]


def test_it_fetches_as_much_as_it_was_granted() -> None:
    store = Store()
    store.waiting = [handout(token) for token in "abc"]
    assert delivered(run(store)) == [(["a", "b"], False)]
    assert [each.lease.token for each in store.waiting] == ["c"]


def test_it_stops_fetching_and_says_so_after_what_it_has_handed_over() -> None:
    store = Store()
    store.waiting = [handout(token) for token in "abc"]
    heard = run(store, pool=LeavingPool)
    assert [type(each) for each in heard] == [m.ConsumerStarted, m.Deliver, m.FetchingStopped]
    assert [each.lease.token for each in store.waiting] == ["c"]


def test_what_it_holds_and_the_pool_does_not_know_is_handed_over() -> None:
    store = Store()
    store.leased = [handout("a")]
    heard = run(store)
    assert [type(each) for each in heard] == [m.ConsumerStarted, m.Held, m.Deliver]
    assert delivered(heard) == [(["a"], True)]


def test_what_was_settled_in_the_meantime_is_not_run_again() -> None:
    """The list of leases was read before the settlement, and reaches the pool after it."""
    store = Store()
    store.leased = [handout("settled"), handout("lost")]
    heard = run(store, before_answer=lambda: store.leased.pop(0) if len(store.leased) == 2 else None)
    assert delivered(heard) == [(["lost"], True)]


def test_after_a_lost_answer_it_looks_for_what_came_with_it() -> None:
    store = Store()
    store.waiting = [handout("a")]
    store.fails = 0
    plain = store.receive
    answers = iter([True, False])

    def receive(limit: int, wait: float) -> list[Handout]:
        store.fails = next(answers, False)
        return plain(limit, wait)

    store.receive = receive  # type: ignore[method-assign]  # loses its first answer
    heard = run(store)
    assert delivered(heard) == [(["a"], True)]


def test_a_broker_that_is_away_is_asked_again() -> None:
    store = Store()
    store.leased = [handout("a")]
    store.fails = 3
    assert delivered(run(store)) == [(["a"], True)]


def test_what_cannot_be_read_and_what_has_expired_go_the_same_way_with_their_outcome() -> None:
    store = Store()
    store.waiting = [handout("a", body=b"\xc1"), handout("b", expires_at=999.0)]
    (told,) = [each for each in run(store) if isinstance(each, m.Deliver)]
    assert not told.deliveries
    (unreadable, rejected), (_, expired) = told.judged
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, unreadable.body, unreadable.envelope.id) == ("malformed", b"\xc1", "id-a")
    assert expired == Expired()
