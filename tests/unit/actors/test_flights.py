from __future__ import annotations

import pytest

from stem_actors.actors.flights import MOST_BYTES, MOST_IN_FLIGHT, Flights
from stem_actors.actors.waiting_line import WaitingLine
from stem_actors.model.delivery import State
from tests.unit.model.values import LEASE, delivery_of


def test_a_flight_is_found_by_its_lease_and_by_its_claim_until_it_is_removed() -> None:
    flights = Flights()
    flight = flights.add(delivery_of(), now=5.0)
    assert flights.get("t1") is flight is flights.by_claim(flight.claim)
    assert "t1" in flights
    assert (len(flights), flight.deadline, flight.received_at) == (1, LEASE.deadline, 5.0)
    assert flights.remove("t1") is flight
    assert flights.remove("t1") is None
    assert (len(flights), flights.by_claim(flight.claim)) == (0, None)


def test_two_deliveries_of_one_task_are_two_flights() -> None:
    flights = Flights()
    old, new = (flights.add(delivery_of(lease=LEASE._replace(token=token)), 0.0) for token in ("old", "new"))
    assert old.claim != new.claim
    assert [flight.token for flight in flights] == ["old", "new"]


@pytest.mark.parametrize(("lapses", "alone", "suspect"), [(0, False, False), (1, True, False), (2, True, True)])
def test_lapses_decide_what_a_flight_may_share(lapses: int, alone: bool, suspect: bool) -> None:
    flight = Flights().add(delivery_of(State(lapses=lapses)), 0.0)
    assert (flight.runs_alone, flight.is_suspect) == (alone, suspect)


@pytest.mark.parametrize(
    ("run_time", "is_hoarding", "wanted"),
    [
        (None, False, 4 + 8),  # nothing known: slots and prefetch
        (10.0, False, 4 + 8),  # long: no more than that
        (10.0, True, 4),  # what waits will not start soon: free slots only
        (0.001, False, 4 + 200),  # 50 ms of work for each slot
        (1e-9, False, 4 + MOST_IN_FLIGHT),
        (0.0, False, 4 + MOST_IN_FLIGHT),
    ],
)
def test_how_much_is_held_follows_how_long_tasks_take(run_time: float | None, is_hoarding: bool, wanted: int) -> None:
    assert Flights().wanted(4, 8, run_time, is_hoarding) == wanted


def test_a_large_prefetch_is_granted_as_it_was_set() -> None:
    assert Flights().wanted(100, 5000, None, False) == 1124


def test_bytes_bound_what_is_held_whatever_its_number() -> None:
    flights = Flights()
    flights.add(delivery_of(body=bytes(MOST_BYTES)), 0.0)
    assert flights.wanted(4, 8, None, False) == 0
    flights.remove("t1")
    assert flights.wanted(4, 8, None, False) == 12


def test_of_suspects_that_wait_the_shortest_goes_first() -> None:
    flights, line = Flights(), WaitingLine()
    suspects = {}
    for token, expected in (("long", 10.0), ("unknown", None), ("short", 0.01)):
        flight = flights.add(delivery_of(State(lapses=2), lease=LEASE._replace(token=token)), 0.0)
        flight.expected = expected
        line.add(flight)
        suspects[token] = flight
    order = []
    while (suspect := line.next_suspect()) is not None:
        order.append(suspect.token)
        assert line.next_suspect() is None  # one at a time
        line.ended(suspect)
    assert order == ["short", "unknown", "long"]


def test_what_the_broker_has_heard_of_comes_before_what_a_renewal_brings_back_later() -> None:
    """Else each would wait for the other: the one to be next in line, the other for the first to have left it."""
    flights, line = Flights(), WaitingLine()
    heard, unheard = (
        flights.add(delivery_of(State(lapses=1), lease=LEASE._replace(token=token, deadline=5.0)), 0.0)
        for token in ("heard", "unheard")
    )
    heard.tells_first = False
    line.stall(heard)
    line.stall(unheard)
    heard.deadline = 20.0
    line.revive(10.0)
    unheard.deadline = 21.0
    line.revive(11.0)
    assert list(line.of_kind(False)) == [heard, unheard]
