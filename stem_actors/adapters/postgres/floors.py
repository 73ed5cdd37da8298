"""Where a queue's waiting messages begin. What was claimed lies dead before them until a vacuum has been there.

That a claim would walk over, a little each time; with somebody's transaction open for minutes, all of it each time. So each
process finds out once a second where each level begins, and claims from there on. A message whose publication took longer than
that from its number to its commit lies before the floor: it is found by the claim that now and then looks everywhere.
"""

from __future__ import annotations

import time

from stem_actors.adapters.postgres.arrays import Integers
from stem_actors.adapters.postgres.connection import Database, Parameters

__all__ = ["LANES", "Floors"]

MEASURE_EVERY = 1.0
LOOK_EVERYWHERE_EVERY = 5.0
LEVELS = 10
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1

LANES = """
    SELECT found.ctid FROM unnest(%(levels)s::bigint[], %(lows)s::bigint[], %(highs)s::bigint[]) AS lane (level, low, high)
    CROSS JOIN LATERAL (
        SELECT ctid FROM @ready AS ready
        WHERE queue = %(queue)s AND ready.level = lane.level AND rank BETWEEN lane.low AND lane.high
            AND NOT EXISTS (SELECT FROM look WHERE due <= now)
        ORDER BY rank LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) AS found LIMIT %(limit)s
"""
"""The head of a queue: of each level what came back, then what is new from the floor on."""

_MEASURE = """
    SELECT coalesce(
        (
            SELECT rank FROM @ready AS ready WHERE queue = %(queue)s AND ready.level = each.level AND rank >= 1
            ORDER BY rank LIMIT 1
        ),
        (SELECT last_value FROM @number)
    )
    FROM generate_series(0, 9) AS each (level) ORDER BY each.level
"""


class Floors:
    """Those of one queue, for one thread."""

    def __init__(self, database: Database, queue: int) -> None:
        self._database = database
        self._queue = queue
        self._measured: list[int] = []
        self._measured_at = time.monotonic()  # the first claims look everywhere
        self._looked_everywhere_at = float("-inf")
        self._in_use: list[int] = []

    def lanes(self) -> Parameters | None:
        """The parameters of `LANES`; None: look everywhere this time."""
        now = time.monotonic()
        if now - self._measured_at >= MEASURE_EVERY:
            self._in_use = self._measured  # a second old by now, so that what was under way then is behind it
            self._measured = [rank for (rank,) in self._database.run(_MEASURE, {"queue": self._queue})]
            self._measured_at = now
        if not self._in_use or now - self._looked_everywhere_at >= LOOK_EVERYWHERE_EVERY:
            self._looked_everywhere_at = now
            return None
        return {
            "levels": Integers([level for level in range(LEVELS) for _ in range(2)]),
            "lows": Integers([low for floor in self._in_use for low in (_LOWEST, max(1, floor))]),
            "highs": Integers([0, _HIGHEST] * LEVELS),
        }
