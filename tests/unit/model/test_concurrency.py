"""Places: never more than there are, and nobody who waits is overtaken for ever."""

from __future__ import annotations

import random
from heapq import heappop, heappush

from hypothesis import given
from hypothesis import strategies as st

from stem_actors.model.concurrency import LONGEST_PACE, SHORTEST_PACE, Place, Semaphore, grant, pace
from stem_actors.model.rate import LONGEST_LINE

FOREVER = 1e9


def place(task: str, number: int = 1, since: float = 0.0, lasts: float = FOREVER, key: str = "k") -> Place:
    return Place(key, number, f"holder of {task}", task, since, lasts, 0.1)


def test_the_pace_is_that_at_which_places_come_free_within_bounds() -> None:
    assert pace(10.0, 1) == LONGEST_PACE
    assert pace(0.001, 5) == SHORTEST_PACE
    assert pace(0.4, 4) == 0.1
    assert [pace(None, 1, refusals) for refusals in (0, 1, 2, 3, 4, 99)] == [0.02, 0.04, 0.08, 0.16, 0.25, 0.25]


def test_a_line_that_has_grown_too_long_begins_anew() -> None:
    semaphores: dict[str, Semaphore] = {}
    asked = [[place(f"t{number}", since=number)] for number in range(2000)]
    waits = [wait for wait in grant(asked, {}, semaphores, 0.0) if wait is not None]
    assert len(waits) == 1999
    assert max(waits) <= LONGEST_LINE
    assert sum(wait <= 1.0 for wait in waits) < 50, "they do not all come at once"


def test_an_idle_semaphore_says_so() -> None:
    semaphore = Semaphore()
    assert semaphore.is_idle(0.0)
    taken = semaphore.taken(place("a", lasts=5.0), 0.0)
    assert not taken.is_idle(1.0)
    assert taken.at(6.0).is_idle(6.0)
    refused, _ = Semaphore().refused(place("b"), 0.0)
    assert not refused.is_idle(0.5)
    assert refused.is_idle(10.0)


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["ask", "renew", "free"]), st.integers(0, 8), st.floats(0, 4)), max_size=80),
)
def test_there_are_never_more_than_the_number_says(number: int, steps: list[tuple[str, int, float]]) -> None:
    semaphores: dict[str, Semaphore] = {}
    now = 0.0
    for step, task, later in steps:
        now += later
        asked = place(f"t{task}", number, float(task), lasts=5.0)
        match step:
            case "ask":
                grant([[asked]], {}, semaphores, now)
            case "renew":
                semaphores["k"] = semaphores.get("k", Semaphore()).at(now).renewed(asked, now) or semaphores["k"]
            case _:
                semaphores["k"] = semaphores.get("k", Semaphore()).freed(asked.holder)
        assert len(semaphores.get("k", Semaphore()).at(now).ends) <= number


def played(number: int, tasks: int, run: float, seed: int) -> dict[str, float]:
    """When tasks began that were enqueued one a second, each asking again when it was told to."""
    chance = random.Random(seed)
    semaphores: dict[str, Semaphore] = {}
    events: list[tuple[float, int, str, float]] = []
    for at in range(tasks):
        heappush(events, (float(at), at, "ask", float(at)))
    began: dict[str, float] = {}
    while events:
        now, task, what, since = heappop(events)
        asked = Place("k", number, f"h{task}", f"t{task}", since, FOREVER, pace(run, number))
        if what == "free":
            semaphores["k"] = semaphores["k"].freed(asked.holder)
            continue
        (wait,) = grant([[asked]], {}, semaphores, now)
        if wait is None:
            began[asked.task] = now
            heappush(events, (now + run * chance.uniform(0.5, 1.5), task, "free", since))
        else:
            heappush(events, (now + wait + chance.uniform(0, 0.05), task, "ask", since))  # as late as a broker may be
    return began


def test_nobody_is_overtaken_for_ever_and_places_are_not_left_empty() -> None:
    for seed in range(5):
        began = played(number=2, tasks=60, run=3.0, seed=seed)
        assert len(began) == 60
        order = sorted(began, key=lambda task: began[task])
        late = [order.index(f"t{task}") - task for task in range(60)]
        assert max(late) <= 12, late
        assert max(began.values()) <= 60 * 3.0 / 2 * 1.15, "a free place is found by somebody soon"
