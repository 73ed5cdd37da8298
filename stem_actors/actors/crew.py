"""The crew: a worker's executors in their slots, from the request for a process to the burial of a dead one.

Part of the pool, split off for its own subject: it knows processes, descriptors and slots, and of tasks only their claims. It
lives in the pool's thread, and what its descriptors and timers have to say comes to the pool as the messages here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stem_actors.actors.catalogue import Catalogue
from stem_actors.actors.slots import Slot
from stem_actors.clock import Clock
from stem_actors.executors.frames import Frame, Handed
from stem_actors.executors.process import ExecutorProcess
from stem_actors.executors.sessions import kill_session
from stem_actors.executors.vital_signs import read_vital_signs
from stem_actors.model.outcome import Outcome

__all__ = ["Crew", "Exited", "Launcher", "Readable", "Relaunch", "Silenced", "Writable"]

_START_DEADLINE = 60.0
_MOST_BACKOFF = 5.0
_REAP_PATIENCE, _REAP_PAUSE = 40, 0.005  # for the forkserver to tell how an executor ended
_REAP_ALL_TIMEOUT = 5.0
_DYING = 0.1
"""Seconds between the end of a dying executor's stream and its death, at most; else it has closed its pipes and lives on."""


class Launcher(Protocol):
    """Starts executors in the worker's main thread; answers `ExecutorUp` or `ExecutorFailed` to the pool."""

    def launch(self, slot: int) -> int:
        """Ask for a process. Returns at once, with the ticket that the answer will carry: above 0, never the same."""
        ...

    def reap_all(self, timeout: float) -> bool:
        """Kill every executor ever started and wait until they are dead; False when one is not in time."""
        ...

    def hung(self) -> None:
        """The main thread has not answered a request for an executor: the process is beyond help."""
        ...


class Actor(Protocol):
    """What the crew uses of the actor whose part it is."""

    @property
    def clock(self) -> Clock: ...
    def watch(self, fd: int, message: object, *, write: bool = False) -> None: ...
    def unwatch(self, fd: int, *, write: bool | None = None) -> None: ...
    def after(self, seconds: float, message: object) -> Any: ...


@dataclass(frozen=True, slots=True)
class Readable:
    """An executor has reported something."""

    slot: Slot
    process: ExecutorProcess


@dataclass(frozen=True, slots=True)
class Silenced:
    """The stream of an executor has ended, or cannot be read any more."""

    slot: Slot
    process: ExecutorProcess


@dataclass(frozen=True, slots=True)
class Writable:
    """An executor's socket takes more."""

    slot: Slot
    process: ExecutorProcess


@dataclass(frozen=True, slots=True)
class Exited:
    """An executor is dead; looked at for the `looks`-th time."""

    slot: Slot
    process: ExecutorProcess
    looks: int = 0


@dataclass(frozen=True, slots=True)
class Relaunch:
    """A slot's backoff is over."""

    slot: Slot


class Crew:
    """Keeps every slot filled with a process that is to have one.

    `concurrency`: executors of each kind. `threads`: runs at once in an executor of sync tasks. `most_runs`: tasks an executor
    gets in its life, None: no bound. `unkillable` holds processes that were given up: killed, replaced, and not dead yet.
    """

    def __init__(
        self,
        actor: Actor,
        launcher: Launcher,
        concurrency: int,
        async_slots: int,
        threads: int = 1,
        most_runs: int | None = None,
    ) -> None:
        self.slots: list[Slot] = []
        self.unkillable: list[ExecutorProcess] = []
        self._actor = actor
        self._launcher = launcher
        self._concurrency = concurrency
        self._async_slots = async_slots
        self._threads = threads
        self._most_runs = most_runs
        self._is_closed = False
        self._add_slots(concurrency, is_async=False)

    def _add_slots(self, number: int, is_async: bool) -> list[Slot]:
        width, first = self._async_slots if is_async else self._threads, len(self.slots)
        more = [Slot(first + each, is_async, width, self._most_runs) for each in range(number)]
        self.slots += more
        return more

    # ------------------------------------------------------------ starting

    def start(self) -> None:
        """Ask for all executors, once those of a predecessor are dead."""
        if not self._launcher.reap_all(_REAP_ALL_TIMEOUT):
            raise RuntimeError("an executor of the pool's predecessor does not die")
        for slot in self.slots:
            self.launch(slot)

    def close(self) -> None:
        """Start none any more."""
        self._is_closed = True

    def reap(self) -> None:
        """Kill them all, and wait for it within bounds."""
        self._launcher.reap_all(_REAP_ALL_TIMEOUT)

    def take_up(self, catalogue: Catalogue) -> None:
        """Executors run sync or async tasks, never both: as many of each kind as there is work for."""
        if not catalogue.has_async:
            return
        if catalogue.has_sync:
            for slot in self._add_slots(self._concurrency, is_async=True):
                self.launch(slot)
        else:
            for slot in self.slots:
                slot.is_async, slot.width = True, self._async_slots

    def launch(self, slot: Slot) -> None:
        slot.asked_at = self._actor.clock.monotonic()
        slot.ticket = self._launcher.launch(slot.index)

    def relaunch(self, slot: Slot) -> None:
        """Its backoff is over."""
        if slot.ticket == 0 and slot.is_wanted and not self._is_closed:
            self.launch(slot)

    def up(self, slot: Slot, ticket: int, process: ExecutorProcess, is_wanted: bool) -> None:
        """A process was started; it has yet to say hello."""
        if slot.ticket != ticket or not is_wanted:
            process.kill()
            process.close()
            return
        slot.process = process
        self._actor.watch(process.pidfd, Exited(slot, process))
        self._actor.watch(process.sock.fileno(), Readable(slot, process))

    def failed(self, slot: Slot, ticket: int) -> None:
        """No process could be started."""
        if slot.ticket == ticket:
            self._launch_later(slot)

    @property
    def is_starting(self) -> bool:
        return any(slot.ticket and not slot.is_ready for slot in self.slots)

    def check_starts(self, now: float) -> None:
        """Give up starts that take too long: kill the process, or, when there is none, the worker."""
        for slot in self.slots:
            if slot.ticket and not slot.is_ready and now - slot.asked_at > _START_DEADLINE:
                if slot.process is None:
                    self._launcher.hung()
                else:
                    self._kill_process(slot, slot.process)

    def _launch_later(self, slot: Slot) -> None:
        """Dying before the first hello, or idle, backs off; dying under a task is its task's fault and does not."""
        slot.ticket = 0
        if slot.is_wanted and not self._is_closed:
            delay = 0.0 if slot.failures == 0 else min(_MOST_BACKOFF, 0.1 * 2.0 ** min(slot.failures, 10))
            self._actor.after(delay, Relaunch(slot))

    # ------------------------------------------------------------ more and fewer

    def resize(self, concurrency: int) -> list[Slot]:
        """Have so many executors of each kind. Returns those that are too many: each leaves when what it runs has ended."""
        self._concurrency = concurrency
        return [slot for is_async in sorted({slot.is_async for slot in self.slots}) for slot in self._resize_kind(is_async)]

    def _resize_kind(self, is_async: bool) -> list[Slot]:
        own = [slot for slot in self.slots if slot.is_async == is_async]
        wanted = [slot for slot in own if slot.is_wanted]
        spare = [slot for slot in own if not slot.is_wanted]
        missing = self._concurrency - len(wanted)
        # One that has not left yet is back at once, without a second process beside the one that still runs there.
        spare.sort(key=lambda slot: (slot.process is None, slot.dismissed_at is not None))
        for slot in spare[: max(0, missing)]:
            slot.is_wanted = True
            if slot.process is None:
                self.relaunch(slot)
        for slot in self._add_slots(missing - len(spare), is_async):
            self.launch(slot)
        wanted.sort(key=lambda slot: (slot.is_ready, slot.inside))  # those go that have the least to end
        surplus = wanted[: max(0, -missing)]
        for slot in surplus:
            slot.is_wanted = False
            if slot.process is None:
                slot.ticket = 0  # what was asked for is not wanted when it comes
        return surplus

    # ------------------------------------------------------------ work

    def open_slots(self, is_async: bool, now: float) -> list[Slot]:
        """Those of a kind that take work now, the emptiest first."""
        slots = [slot for slot in self.slots if slot.is_async == is_async and slot.is_open(now)]
        slots.sort(key=lambda slot: slot.inside)
        return slots

    @property
    def width(self) -> int:
        """Runs that fit in at once. Async slots count as they come into use: there are a thousand, and seldom as much work."""
        ready = [slot for slot in self.slots if slot.is_ready]
        in_use = sum(slot.inside for slot in ready if slot.is_async)
        staying = sum(min(slot.width, 64 + 2 * in_use) if slot.is_async else slot.width for slot in ready if slot.is_wanted)
        return staying + sum(slot.inside for slot in ready if not slot.is_wanted)

    def hand(self, slot: Slot, tasks: Sequence[Handed], now: float) -> None:
        """Give an open slot work."""
        process = slot.process
        assert process is not None, "only an open slot is filled"
        if not process.handed:
            slot.active_at = now
        process.hand(tasks)
        if process.wants_to_write:
            self._actor.watch(process.sock.fileno(), Writable(slot, process), write=True)

    def reply(self, process: ExecutorProcess, number: int, error: Sequence[str] | None, answer: bytes) -> None:
        """Tell an executor what its errand came to, if it is still there."""
        slot = next((slot for slot in self.slots if slot.process is process), None)
        if slot is not None:
            process.reply(number, error, answer)
            if process.wants_to_write:
                self._actor.watch(process.sock.fileno(), Writable(slot, process), write=True)

    def write(self, slot: Slot, process: ExecutorProcess) -> None:
        """Write on what the socket did not take at once."""
        if slot.process is not process:
            return
        try:
            process.flush()
        except OSError:
            self._kill_process(slot, process)  # its pidfd will tell
            return
        if not process.wants_to_write:
            self._actor.unwatch(process.sock.fileno(), write=True)

    def read(self, slot: Slot, process: ExecutorProcess) -> list[Frame]:
        """The frames that an executor sent. One whose stream is closed or garbled is of no use any more."""
        if slot.process is not process:
            return []
        try:
            return list(process.receive())
        except EOFError:
            self._actor.unwatch(process.sock.fileno())
            self._actor.after(_DYING, Silenced(slot, process))
            return []

    def silenced(self, slot: Slot, process: ExecutorProcess) -> None:
        """Nothing can come from it any more; unless it was about to die, it has to."""
        if slot.process is process and not process.has_exited():
            signs = read_vital_signs(process.pid)
            process.has_closed_pipes = slot.killed_at is None and signs is not None and not signs.is_exiting
            self._kill_process(slot, process)  # its pidfd tells when it is dead

    # ------------------------------------------------------------ ends

    def kill(self, slot: Slot, verdicts: Mapping[int, Outcome]) -> None:
        """Kill a slot's executor; what we killed is judged by `verdicts`, what ran beside it is released."""
        if slot.process is not None:
            slot.spares = True
            slot.verdicts.update(verdicts)
            self._kill_process(slot, slot.process)

    def _kill_process(self, slot: Slot, process: ExecutorProcess) -> None:
        if slot.killed_at is None:
            slot.killed_at = self._actor.clock.monotonic()
        process.kill()

    def retire(self, slot: Slot) -> None:
        """Give its executor nothing more; it leaves when what it runs has ended, and is replaced."""
        slot.is_leaving = True
        self.let_leave(slot)

    def let_leave(self, slot: Slot) -> None:
        """Tell an executor to go that is to leave and has nothing left to do."""
        if slot.process is None or slot.inside or slot.dismissed_at is not None:
            return
        if slot.is_leaving or not slot.is_wanted:
            slot.is_leaving = True
            slot.dismissed_at = self._actor.clock.monotonic()
            with contextlib.suppress(OSError):
                slot.process.request_stop()

    def give_up(self, slot: Slot, process: ExecutorProcess) -> None:
        """It was killed and does not die: it will never run a task again, so its place goes to another."""
        self._actor.unwatch(process.sock.fileno())
        self.unkillable.append(process)
        slot.vacate()
        self._launch_later(slot)

    def bury_late(self, process: ExecutorProcess, wall_clock: float) -> None:
        """One that had been given up has died after all."""
        if process in self.unkillable:
            self.unkillable.remove(process)
            self._actor.unwatch(process.pidfd)
            process.close()
            kill_session(process.pid, wall_clock)

    def last_words(self, exited: Exited) -> list[Frame]:
        """What a dead executor still reported."""
        if exited.looks > 0 or exited.slot.process is not exited.process:
            return []
        self._actor.unwatch(exited.process.pidfd)
        self._actor.unwatch(exited.process.sock.fileno())
        return list(exited.process.drain())

    def knows_cause(self, exited: Exited) -> bool:
        """Whether it is known how it ended; else this is asked again in a moment, and in the end answered anyhow."""
        if exited.process.process.exitcode is not None or exited.looks >= _REAP_PATIENCE:
            return True
        self._actor.after(_REAP_PAUSE, Exited(exited.slot, exited.process, exited.looks + 1))
        return False

    def bury(self, slot: Slot, process: ExecutorProcess, wall_clock: float) -> None:
        """End what its tasks left running, and see to a successor."""
        process.close()
        kill_session(process.pid, wall_clock)
        slot.vacate()
        self._launch_later(slot)

    def dismiss(self) -> None:
        """Let them leave; there is nothing more to do."""
        for slot in self.slots:
            self.retire(slot)
