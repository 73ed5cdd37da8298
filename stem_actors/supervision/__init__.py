"""The supervision kernel: actors that are kept alive by supervisors, in threads or step by step.

Knows nothing of tasks and is useful on its own:

    tree = start_tree([ChildSpec("counter", actor(Counter))])
    tree.tell("counter", Add(1))
    tree.stop(timeout=10)
"""

from stem_actors.supervision.base import StemActor
from stem_actors.supervision.child import Backoff, ChildSpec, Intensity, Restart, Start, Strategy, actor
from stem_actors.supervision.context import ActorContext, ActorFactory, Exited, Runtime, Started, ThreadRuntime
from stem_actors.supervision.directory import ChildGone, Directory, DuplicateChild, Life
from stem_actors.supervision.events import (
    ChildExited,
    ChildRestarted,
    ChildStarted,
    ChildStatistics,
    Event,
    SupervisorFailed,
    SupervisorStatistics,
)
from stem_actors.supervision.mailbox import Data, Mailbox, MailboxFull
from stem_actors.supervision.process import ProcessHandle, process
from stem_actors.supervision.reasons import (
    Crashed,
    ExitedWith,
    ExitReason,
    IntensityExceeded,
    Killed,
    Normal,
    Shutdown,
    StartTimeout,
    Stuck,
    Vanished,
)
from stem_actors.supervision.stepper import SteppedClock, Stepper
from stem_actors.supervision.supervisor import Supervisor, supervisor
from stem_actors.supervision.timers import Timer
from stem_actors.supervision.tree import Tree, start_tree

__all__ = [
    "ActorContext",
    "ActorFactory",
    "Backoff",
    "ChildExited",
    "ChildGone",
    "ChildRestarted",
    "ChildSpec",
    "ChildStarted",
    "ChildStatistics",
    "Crashed",
    "Data",
    "Directory",
    "DuplicateChild",
    "Event",
    "ExitReason",
    "Exited",
    "ExitedWith",
    "Intensity",
    "IntensityExceeded",
    "Killed",
    "Life",
    "Mailbox",
    "MailboxFull",
    "Normal",
    "ProcessHandle",
    "Restart",
    "Runtime",
    "Shutdown",
    "Start",
    "StartTimeout",
    "Started",
    "StemActor",
    "SteppedClock",
    "Stepper",
    "Strategy",
    "Stuck",
    "Supervisor",
    "SupervisorFailed",
    "SupervisorStatistics",
    "ThreadRuntime",
    "Timer",
    "Tree",
    "Vanished",
    "actor",
    "process",
    "start_tree",
    "supervisor",
]
