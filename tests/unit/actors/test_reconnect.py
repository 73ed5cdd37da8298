from __future__ import annotations

from stem_actors.actors.reconnect import Reconnect
from stem_actors.actors.vitals import Vitals
from stem_actors.metrics import Tally


def test_delays_grow_to_a_sixth_of_the_visibility_timeout() -> None:
    reconnect = Reconnect("settler", "w-1", 6.0, Vitals(), Tally())
    delays = [reconnect.failed(OSError("away")) for _ in range(50)]
    assert 0.05 <= delays[0] <= 0.1
    assert all(0.5 <= delay <= 1.0 for delay in delays[10:])
    slow = Reconnect("settler", "w-1", 3600.0, Vitals(), Tally())
    assert max(slow.failed(OSError("away")) for _ in range(50)) <= 5.0


def test_who_does_not_reach_the_broker_is_known_until_it_does() -> None:
    vitals, tally = Vitals(), Tally()
    reconnect = Reconnect("settler", "w-1", 30.0, vitals, tally)
    reconnect.succeeded()
    assert tally.snapshot()[0] == {}
    reconnect.failed(OSError("away"))
    assert (reconnect.is_away, vitals.broker_errors) == (True, {"settler": "away"})
    reconnect.succeeded()
    assert (reconnect.is_away, vitals.broker_errors) == (False, {})
    assert tally.snapshot()[0] == {("stem_broker_reconnects_total", ("w-1",)): 1}


def test_what_an_actor_left_behind_when_it_died_goes_when_its_next_life_gets_through() -> None:
    vitals, tally = Vitals(), Tally()
    Reconnect("housekeeper", "w-1", 30.0, vitals, tally).failed(OSError("away"))
    Reconnect("housekeeper", "w-1", 30.0, vitals, tally).succeeded()
    assert vitals.broker_errors == {}
