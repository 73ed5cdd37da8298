"""Clocks that stand still until they are told to go on."""

from __future__ import annotations

import threading

__all__ = ["ManualClock", "VirtualClock"]


class ManualClock:
    """A clock that stands still until `advance`. May be shared by threads.

    Nothing that sleeps is woken by it: it suits code that only reads the time, and the stepper of `supervision`.
    """

    def __init__(self, now: float = 1_700_000_000.0, monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds that only `advance` moves."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both readings on.

        Raises:
            ValueError: `seconds` is negative; see `set_now` for a host clock that is set back.
        """
        if seconds < 0:
            raise ValueError(f"a clock advances by 0 or more seconds, not {seconds}")
        with self._lock:
            self._now += seconds
            self._monotonic += seconds

    def set_now(self, now: float) -> None:
        """Set the wall clock, as an operator or NTP would; `monotonic` goes on from where it was."""
        with self._lock:
            self._now = now


class VirtualClock:
    """The clock of a simulation. Everything else in it is worked out from `elapsed`, which has no digits to lose.

    The wall clock may leap where `monotonic` stays: workers measure by that one, and need not go through every second in which
    nothing happens.
    """

    def __init__(self, began_at: float = 1_700_000_000.0, monotonic: float = 1000.0) -> None:
        self.elapsed = 0.0
        """Seconds since the simulation began."""
        self._began_at = began_at
        self._first = monotonic
        self._passed = 0.0
        self._leapt = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._began_at + self.elapsed

    def monotonic(self) -> float:
        """Seconds as workers measure them."""
        return self._first + self._passed

    def advance(self, seconds: float) -> None:
        """Move both readings on."""
        self._passed += seconds
        self.elapsed = self._passed + self._leapt

    def leap(self, seconds: float) -> None:
        """Move the wall clock on alone."""
        self._leapt += seconds
        self.elapsed = self._passed + self._leapt
