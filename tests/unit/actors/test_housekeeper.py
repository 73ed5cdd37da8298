"""The housekeeper keeps up with records that expire as fast as tasks end."""

from __future__ import annotations

from pathlib import Path

from stem_actors.actors.housekeeper import Housekeeper
from stem_actors.actors.reconnect import Reconnect
from stem_actors.actors.vitals import Vitals
from stem_actors.adapters import open_stores
from stem_actors.errors import BrokerUnavailable
from stem_actors.metrics import Tally
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.record import TaskRecord
from stem_actors.ports import Stores
from stem_actors.supervision import ChildSpec, Stepper, actor
from stem_actors.testing import ManualClock

TTL = 10.0


class Away:
    """Revocations in a place that does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    def prune_expired(self) -> int:
        self.asked += 1
        raise BrokerUnavailable("nobody answers")


def test_revocations_in_a_place_that_is_away_keep_nobody_from_sweeping(tmp_path: Path) -> None:
    clock, vitals, tally, away = ManualClock(), Vitals(), Tally(), Away()
    stores: Stores = open_stores(f"sqlite:///{tmp_path}/stem.db", clock=clock)

    def housekeeper(context: object) -> Housekeeper:
        reconnect = Reconnect("housekeeper", "w-1", 30.0, vitals, tally)
        return Housekeeper(context, stores.broker, stores.results, away, reconnect, vitals, tally)  # type: ignore[arg-type]

    stepper = Stepper([ChildSpec("housekeeper", actor(housekeeper))], clock=clock)
    try:
        stepper.run(65.0)
        assert away.asked >= 3
        assert vitals.broker_errors == {}
        assert vitals.swept_at >= clock.monotonic() - 2
    finally:
        stepper.stop()
        stores.close()


def test_records_that_expire_fast_are_purged_as_fast(tmp_path: object) -> None:
    clock = ManualClock()
    stores = open_stores(f"sqlite:///{tmp_path}/stem.db", clock=clock, result_ttl=TTL)
    assert stores.results is not None
    tally = Tally()

    def housekeeper(context: object) -> Housekeeper:
        reconnect = Reconnect("housekeeper", "w-1", 30.0, Vitals(), tally)
        return Housekeeper(context, stores.broker, stores.results, stores.revocations, reconnect, Vitals(), tally)  # type: ignore[arg-type]

    stepper = Stepper([ChildSpec("housekeeper", actor(housekeeper))], clock=clock)
    try:
        stores.results.set_many([TaskRecord(f"t{number}", TaskState.SUCCEEDED) for number in range(12_000)])
        clock.advance(TTL + 1)
        stepper.run(3.0)
        assert stores.results.purge_expired() == 0
    finally:
        stepper.stop()
        stores.close()
