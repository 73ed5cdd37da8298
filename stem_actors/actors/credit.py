"""How much more the consumer may fetch. Plain bookkeeping for the pool, which is its only user."""

from __future__ import annotations

__all__ = ["Credit"]

_IDLE_AFTER = 0.5
_WITHHELD_FOR = 0.25


class Credit:
    """What was granted to the consumer, in deliveries. Times are `Clock.monotonic()`.

    `outstanding`: granted and not used. Below zero where the consumer has used what was being withdrawn.
    """

    def __init__(self) -> None:
        self.outstanding = 0
        self._waits_since = 0.0  # for deliveries that it has asked for
        self._withheld_until: float | None = None

    @property
    def is_withheld(self) -> bool:
        """Whether somebody has to come back and grant."""
        return self._withheld_until is not None

    def used(self, deliveries: int, now: float) -> None:
        """So many have come."""
        self.outstanding -= deliveries
        self._waits_since = now

    def lapse(self) -> None:
        """There is a new consumer, which has been granted nothing."""
        self.outstanding = 0

    def grant(self, held: int, wanted: int, now: float) -> int:
        """What to grant a worker that holds less than it wants to: in batches while it holds plenty, at once when little."""
        if self._withheld_until is not None and now < self._withheld_until:
            return 0
        self._withheld_until = None
        room = wanted - held - self.outstanding
        if room <= 0 or (room * 8 < wanted and held * 2 >= wanted):
            return 0
        if self.outstanding <= 0:
            self._waits_since = now
        self.outstanding += room
        return room

    def withdraw(self, surplus: int) -> int:
        """What to take back of the surplus: no more than is outstanding."""
        withdrawn = max(0, min(surplus, self.outstanding))
        self.outstanding -= withdrawn
        return withdrawn

    def is_idle(self, now: float) -> bool:
        """Whether the broker has had nothing more for this worker for a while."""
        return self.outstanding > 0 and now - self._waits_since > _IDLE_AFTER

    def withhold(self, now: float) -> int:
        """Grant nothing for a moment, so that others come first to what is handed back. Returns what to take back for it."""
        self._withheld_until = now + _WITHHELD_FOR
        return self.withdraw(self.outstanding)
