"""Paused queues, as every adapter keeps them."""

from __future__ import annotations

from stem_actors.ports import Pause, Stores
from stem_actors.testing import ManualClock
from tests.contract.fabric import Fabric


def test_a_queue_is_paused_until_it_is_resumed(stores: Stores, clock: ManualClock) -> None:
    assert stores.pauses.paused() == []
    stores.pauses.pause(["mail", "déjà vu"], "the mail server moves", "ops")
    since = clock.now()
    assert stores.pauses.paused() == [
        Pause("déjà vu", "the mail server moves", "ops", since),
        Pause("mail", "the mail server moves", "ops", since),
    ]
    stores.pauses.resume(["mail"])
    assert [each.queue for each in stores.pauses.paused()] == ["déjà vu"]
    stores.pauses.resume(["déjà vu"])
    assert stores.pauses.paused() == []


def test_pausing_again_says_why_anew_and_keeps_the_time(stores: Stores, clock: ManualClock) -> None:
    stores.pauses.pause(["mail"], "one", "me")
    since = clock.now()
    clock.advance(60)
    stores.pauses.pause(["mail", "other"])
    assert stores.pauses.paused() == [Pause("mail", None, None, since), Pause("other", None, None, clock.now())]


def test_to_resume_what_is_not_paused_and_to_change_nothing_is_no_error(stores: Stores) -> None:
    stores.pauses.resume(["mail"])
    stores.pauses.pause([])
    stores.pauses.resume([])
    assert stores.pauses.paused() == []


def test_a_pause_is_seen_by_others_and_outlives_who_asked_for_it(fabric: Fabric) -> None:
    asking = fabric.open()
    asking.pauses.pause(["mail"], "why", "who")
    asking.close()
    assert [each.queue for each in fabric.open().pauses.paused()] == ["mail"]


def test_two_namespaces_pause_queues_of_their_own(fabric: Fabric) -> None:
    fabric.open("one").pauses.pause(["mail"])
    assert fabric.open("other").pauses.paused() == []
    fabric.open("other").pauses.resume(["mail"])
    assert [each.queue for each in fabric.open("one").pauses.paused()] == ["mail"]
