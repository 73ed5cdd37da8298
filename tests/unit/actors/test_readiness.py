from __future__ import annotations

from collections import Counter
from typing import Any

from stem_actors.actors.pool_report import PoolReport
from stem_actors.actors.readiness import Judgement, judge
from stem_actors.actors.vitals import Vitals

NOW = 1000.0


def report(**changes: Any) -> PoolReport:
    fields: dict[str, Any] = {
        "inflight": 0,
        "waiting": 0,
        "running": 0,
        "credit": 4,
        "free_slots": 2,
        "ready_executors": 2,
        "executors": [],
        "states": Counter[str](),
        "queues": Counter[str](),
        "active": [],
        "is_draining": False,
        "succeeded": 0,
        "failed": 0,
    }
    return PoolReport(**{**fields, **changes})


def judged(
    seen: PoolReport | None,
    age: float = 0.1,
    started_at: float = 0.0,
    work_waits: bool = False,
    received: float = 0.5,
    renewed: float = 0.5,
    broker_errors: dict[str, str] | None = None,
) -> Judgement:
    """`received` and `renewed`: seconds since then."""
    vitals = Vitals(received_at=NOW - received, renewed_at=NOW - renewed, broker_errors=broker_errors or {})
    return judge(seen, age, vitals, NOW, started_at, 30.0, work_waits)


def test_a_worker_that_fetches_and_renews_is_ready() -> None:
    assert judged(report(inflight=3)) == Judgement()


def test_a_pool_that_says_nothing_is_hopeless_after_a_while() -> None:
    assert judged(None, started_at=NOW - 3).reasons == ("starting",)
    assert judged(None, started_at=NOW - 6).reasons == ("the executor pool has not answered for 6 s",)
    assert not judged(None, started_at=NOW - 6).is_hopeless
    assert not judged(report(), age=6.0).is_hopeless
    assert judged(report(), age=6.0).reasons
    assert judged(report(), age=31.0).is_hopeless


def test_a_draining_worker_is_not_ready_and_not_cured() -> None:
    assert judged(report(is_draining=True), received=99.0) == Judgement(("draining",))


def test_without_an_executor_it_is_starting() -> None:
    assert judged(report(ready_executors=0), received=99.0) == Judgement(("starting: no executor is ready",))


def test_as_many_executors_that_do_not_die_as_there_are_slots_make_it_unready() -> None:
    assert judged(report(slots=2, unkillable=1)) == Judgement()
    reason = "2 executor(s) do not die of SIGKILL: they hang in the kernel"
    assert judged(report(slots=2, unkillable=2, ready_executors=0)) == Judgement((reason,))


def test_a_broker_out_of_reach_is_named_by_actor_and_is_nothing_to_cure() -> None:
    found = judged(report(), received=99.0, broker_errors={"settler": "locked", "consumer": "gone"})
    assert found == Judgement(("broker unreachable by the consumer: gone", "broker unreachable by the settler: locked"))


def test_leases_that_are_not_renewed_make_it_unready_while_some_are_held() -> None:
    assert judged(report(inflight=1), renewed=21.0).reasons == ("leases have not been renewed for 21 s",)
    assert judged(report(inflight=0), renewed=21.0) == Judgement()
    assert judged(report(inflight=1), renewed=21.0, started_at=NOW - 5) == Judgement()


def test_credit_that_is_not_used_is_cured_and_then_given_up() -> None:
    assert judged(report(), received=5.0) == Judgement()
    first, then, last = (judged(report(), received=seconds) for seconds in (6.0, 11.0, 31.0))
    assert first.reasons == ("no progress for 6 s: the consumer fetches nothing",)
    assert (first.cure, first.is_hopeless) == (None, False)
    assert (then.cure, then.is_hopeless) == ("consumer", False)
    assert (last.cure, last.is_hopeless) == ("consumer", True)


def test_a_worker_without_credit_is_busy_and_not_stalled() -> None:
    assert judged(report(credit=0, free_slots=0), received=99.0, work_waits=True) == Judgement()
    assert judged(report(credit=0, waiting=5), received=99.0, work_waits=True) == Judgement()
    assert judged(report(credit=0), received=99.0, work_waits=False) == Judgement()


def test_free_executors_and_waiting_work_without_credit_is_a_stall() -> None:
    found = judged(report(credit=0), received=11.0, work_waits=True)
    assert found.cure == "executor_pool"
    assert "no credit is given" in found.reasons[0]


def test_a_worker_that_has_just_started_has_time() -> None:
    assert judged(report(), received=99.0, started_at=NOW - 4) == Judgement()
