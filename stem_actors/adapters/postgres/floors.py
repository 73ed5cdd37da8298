"""Where a queue's waiting messages begin. What was claimed lies dead before them until a vacuum has been there.

That a claim would walk over, a little each time; with somebody's transaction open for minutes, all of it each time. So each
process finds out once a second where each level begins, and claims from there on. To find that out it walks over the dead itself:
all of them while that is quick, else those of the last seconds, and all of them now and then. A message whose publication took
longer than that from its number to its commit lies before the floor until then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from stem_actors.adapters.postgres.arrays import Integers
from stem_actors.adapters.postgres.connection import Database, Parameters
from stem_actors.adapters.postgres.pace import Pace

__all__ = ["LANES", "LOWEST_LANES", "WAITING", "Floors", "lanes"]

MEASURE_EVERY = 1.0
LEVELS = 10
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1

_LANE = "ready.level = lane.level AND rank BETWEEN lane.low AND lane.high"
_HEAD = f"""
    SELECT found.ctid FROM unnest(%(levels)s::bigint[], %(lows)s::bigint[], %(highs)s::bigint[]) AS lane (level, low, high)
    CROSS JOIN LATERAL (
        SELECT ctid FROM @ready AS ready WHERE queue = %(queue)s AND {_LANE} AND NOT EXISTS (SELECT FROM look WHERE due <= now)
        ORDER BY rank LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) AS found {{only}} LIMIT %(limit)s
"""
_USED = f"""
    unnest(%(queues)s::bigint[], %(levels)s::bigint[], %(lows)s::bigint[], %(highs)s::bigint[])
        WITH ORDINALITY AS lane (queue, level, low, high, place)
    CROSS JOIN LATERAL (SELECT FROM @ready AS ready WHERE ready.queue = lane.queue AND {_LANE} LIMIT 1) AS found
"""

LANES = _HEAD.format(only="")
"""The head of a queue: of each level what came back, then what is new from the floor on."""
LOWEST_LANES = _HEAD.format(only=f"WHERE lane.level = (SELECT max(lane.level) FROM {_USED})")
"""The same of its lowest level alone."""
WAITING = f"SELECT queue FROM {_USED} GROUP BY queue ORDER BY min(place)"
"""The queues in which something waits, in the order of the parameters."""

_MEASURE = """
    SELECT coalesce(
        (
            SELECT rank FROM @ready AS ready WHERE queue = %(queue)s AND ready.level = each.place - 1 AND rank >= each.low
            ORDER BY rank LIMIT 1
        ),
        (SELECT last_value FROM @number)
    )
    FROM unnest(%(lows)s::bigint[]) WITH ORDINALITY AS each (low, place) ORDER BY place
"""


class Floors:
    """Those of one queue, for one thread."""

    def __init__(self, database: Database, queue: int) -> None:
        self._database = database
        self._queue = queue
        self._measured_at = time.monotonic()
        self._measured = self._in_use = [1] * LEVELS
        self._from_the_start = Pace(time.monotonic)

    def in_use(self) -> list[int]:
        """The floor of each level."""
        now = time.monotonic()
        if now - self._measured_at >= MEASURE_EVERY:
            before = self._measured
            if self._from_the_start.is_due:
                with self._from_the_start.timed():
                    self._measured = self._measure([1] * LEVELS)
            else:
                self._measured = self._measure(self._in_use)
            self._in_use = list(map(min, before, self._measured))  # what was under way a second ago is behind those of then
            self._measured_at = now
        return self._in_use

    def _measure(self, lows: list[int]) -> list[int]:
        rows = self._database.run(_MEASURE, {"queue": self._queue, "lows": Integers(lows)})
        return [rank for (rank,) in rows]


def lanes(floors: Mapping[int, Floors]) -> Parameters:
    """The parameters that say where to look in these queues."""
    in_use = [(queue, floor) for queue, some in floors.items() for floor in some.in_use()]
    return {
        "queues": Integers([queue for queue, _ in in_use for _ in range(2)]),
        "levels": Integers([level for _ in floors for level in range(LEVELS) for _ in range(2)]),
        "lows": Integers([low for _, floor in in_use for low in (_LOWEST, max(1, floor))]),
        "highs": Integers([0, _HIGHEST] * len(in_use)),
    }
