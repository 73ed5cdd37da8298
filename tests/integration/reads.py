"""All that a producer or an operator can read from stores, and something to be found there. For tests that cut connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stem_actors.codecs.msgpack import encode_payload
from stem_actors.model.outcome import DeadLetter
from stem_actors.ports import Revocation, Stores
from tests.contract.fabric import message, publish, record_of, results_of, settle, take, take_one

__all__ = ["READS", "fill"]

READS: dict[str, Callable[[Stores], Any]] = {
    "a result": lambda stores: _of(results_of(stores).get("done")).payload,
    "results that there are": lambda stores: [each.payload for each in results_of(stores).wait(["done"], 10).values()],
    "results that there are not": lambda stores: not results_of(stores).wait(["none"], 0.05),
    "a list of results": lambda stores: [each.id for each in results_of(stores).list_records().items],
    "depths": lambda stores: [(each.queue, each.pending, each.dead) for each in stores.broker.depths()],
    "depths of named queues": lambda stores: [each.pending for each in stores.broker.depths(["default"])],
    "dead letters": lambda stores: [each.id for each in stores.broker.dead_letters("dead").entries],
    "a dead letter": lambda stores: _of(stores.broker.dead_letter("dead", "dead")).reason,
    "what would be replayed": lambda stores: [each.id for each in stores.broker.replay_dead_letters("dead", dry_run=True)],
    "claims": lambda stores: not stores.broker.claims("a-key"),
    "revocations": lambda stores: [each.task_id for each in stores.revocations.list_since()],
    "pauses": lambda stores: [each.queue for each in stores.pauses.paused()],
    "a lock": lambda stores: stores.locks.owner_of("a-lock"),
    "heartbeats": lambda stores: stores.heartbeats.list_heartbeats(),
    "a place on the bus": lambda stores: stores.control.cursor(["all"]),
    "messages": lambda stores: stores.control.pull(["all"], 0)[0],
    "messages that were waited for": lambda stores: stores.control.pull(["all"], 0, wait=10)[0],
}


def fill(stores: Stores) -> None:
    """Something for each of them to find."""
    broker = stores.broker
    publish(broker, "done", "waiting", message("dead", queue="dead"))
    done = take_one(broker)
    settle(broker, done, record=record_of(done, payload=encode_payload(42)))
    settle(broker, take(broker, queues=["dead"])[0], DeadLetter("why"))
    stores.revocations.upsert_all([Revocation("revoked")])
    stores.pauses.pause(["paused"])
    assert stores.locks.acquire("a-lock", "me", 600)
    stores.heartbeats.put_heartbeat("w-1", {"workerId": "w-1"}, 600)
    stores.control.send("all", b"1", 600)


def _of(found: Any) -> Any:
    assert found is not None
    return found
