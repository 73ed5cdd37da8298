from __future__ import annotations

from stem_actors.actors.credit import Credit


def test_what_is_wanted_and_neither_held_nor_granted_is_granted() -> None:
    credit = Credit()
    assert credit.grant(held=2, wanted=10, now=0.0) == 8
    assert credit.grant(held=2, wanted=10, now=0.0) == 0
    credit.used(8, now=1.0)
    assert credit.outstanding == 0


def test_a_worker_that_holds_plenty_grants_in_batches() -> None:
    credit = Credit()
    assert credit.grant(held=95, wanted=100, now=0.0) == 0
    assert credit.grant(held=87, wanted=100, now=0.0) == 13


def test_a_worker_that_holds_little_grants_each_at_once() -> None:
    credit = Credit()
    credit.grant(held=0, wanted=100, now=0.0)
    credit.used(1, now=0.0)
    assert credit.grant(held=0, wanted=100, now=0.0) == 1


def test_no_more_is_withdrawn_than_is_outstanding() -> None:
    credit = Credit()
    credit.grant(held=0, wanted=5, now=0.0)
    assert [credit.withdraw(-3), credit.withdraw(3), credit.withdraw(3), credit.withdraw(3)] == [0, 3, 2, 0]


def test_what_came_although_it_was_being_withdrawn_is_made_up_for_by_the_next_grant() -> None:
    credit = Credit()
    credit.grant(held=0, wanted=5, now=0.0)
    credit.withdraw(5)
    credit.used(5, now=0.0)
    assert credit.outstanding == -5
    assert credit.grant(held=5, wanted=8, now=0.0) == 8
    assert credit.outstanding == 3


def test_a_worker_is_idle_when_it_has_asked_for_half_a_second_and_nothing_came() -> None:
    credit = Credit()
    assert not credit.is_idle(10.0)  # it has asked for nothing
    credit.grant(held=0, wanted=5, now=10.0)
    assert not credit.is_idle(10.4)
    credit.used(1, now=10.4)
    credit.grant(held=1, wanted=5, now=10.8)
    assert not credit.is_idle(10.8)
    assert credit.is_idle(11.0)


def test_the_wait_begins_anew_when_all_had_been_used() -> None:
    credit = Credit()
    credit.grant(held=0, wanted=5, now=10.0)
    credit.used(5, now=10.0)
    credit.grant(held=0, wanted=5, now=20.0)
    assert not credit.is_idle(20.4)
    assert credit.is_idle(20.6)


def test_what_is_withheld_is_granted_a_moment_later() -> None:
    credit = Credit()
    credit.grant(held=0, wanted=5, now=10.0)
    assert (credit.withhold(11.0), credit.outstanding, credit.is_withheld) == (5, 0, True)
    assert credit.grant(held=0, wanted=5, now=11.2) == 0
    assert (credit.grant(held=0, wanted=5, now=11.3), credit.is_withheld) == (5, False)


def test_a_new_consumer_has_nothing() -> None:
    credit = Credit()
    credit.grant(held=0, wanted=5, now=0.0)
    credit.lapse()
    assert credit.grant(held=0, wanted=5, now=0.0) == 5
