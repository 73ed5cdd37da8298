"""Every fault there is, by name."""

from __future__ import annotations

from collections.abc import Mapping

from stem_chaos.nemesis.brokers import FailOver, FreezeBroker, LockDatabase, kill_broker, restart_broker
from stem_chaos.nemesis.clocks import StepClock
from stem_chaos.nemesis.crashes import CrashPoint
from stem_chaos.nemesis.disks import FillDisk
from stem_chaos.nemesis.fault import Fault
from stem_chaos.nemesis.kills import ACTORS, KillActor, KillExecutor, KillHost, KillNode, KillWorker
from stem_chaos.nemesis.links import IsolateNode, blackhole_link, cut_link, delay_link, narrow_link, reset_link
from stem_chaos.nemesis.memory import SqueezeMemory
from stem_chaos.nemesis.pauses import PauseExecutor, PauseHost, PauseNode, PauseWorker
from stem_chaos.points import POINTS

__all__ = ["FAULTS"]

_ALL: list[Fault] = [
    KillActor(),
    *(KillActor(f"kill-actor/{actor}", actor=actor) for actor in ACTORS),
    KillExecutor(),
    KillWorker(),
    KillNode(),
    KillHost(),
    PauseExecutor(),
    PauseWorker(),
    PauseNode(),
    PauseHost(),
    CrashPoint(),
    *(CrashPoint(f"crash-point/{point}", point=point) for point in POINTS),
    restart_broker(),
    kill_broker(),
    FreezeBroker(),
    LockDatabase(),
    FailOver(),
    cut_link(),
    reset_link(),
    blackhole_link(),
    delay_link(),
    narrow_link(),
    IsolateNode(),
    StepClock(),
    FillDisk(),
    SqueezeMemory(),
]

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _ALL}
"""`kill-actor` and `crash-point` choose among those with a slash in their name."""
