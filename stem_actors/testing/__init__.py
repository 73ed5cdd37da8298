"""What a user's own tests need. Public.

`ManualClock`: a clock advanced by hand. `Simulation`: an application and its workers in one process, in virtual time; with
pytest one gets it from the fixture `stem_simulation`. `Faults`: what is to go wrong meanwhile.

Importing this costs nothing: each name is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stem_actors.testing.clock import ManualClock
    from stem_actors.testing.faults import Faults
    from stem_actors.testing.journal import Attempt, Entry, Journal
    from stem_actors.testing.simulation import NotQuiet, Simulation, TaskRun
    from stem_actors.testing.strands import ExecutorDeath

__all__ = [
    "Attempt",
    "Entry",
    "ExecutorDeath",
    "Faults",
    "Journal",
    "ManualClock",
    "NotQuiet",
    "Simulation",
    "TaskRun",
]

_HOMES = {
    "stem_actors.testing.clock": ("ManualClock",),
    "stem_actors.testing.faults": ("Faults",),
    "stem_actors.testing.journal": ("Attempt", "Entry", "Journal"),
    "stem_actors.testing.simulation": ("NotQuiet", "Simulation", "TaskRun"),
    "stem_actors.testing.strands": ("ExecutorDeath",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # to a type checker it would mean that every name exists

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
