"""Who held a task while it ran: the run is written down by an executor, the lease by its worker."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from stem_chaos.checker.lives import Life, Run
from stem_chaos.history import History, Operation, Verb

__all__ = ["Lost", "deliveries_of", "holders_of", "visibility_of"]


def deliveries_of(life: Life, run: Run) -> list[Operation]:
    """The hand-outs that a run may belong to: those of its attempt that were received before it began, by its worker."""
    worker = run.start.detail.get("worker")
    known = [each for each in life.deliveries if each.at <= run.began and each.attempt in (None, run.start.attempt)]
    own = [each for each in known if worker and (each.incarnation or "").partition("#")[0] == worker]
    return own or known


def holders_of(life: Life, run: Run) -> set[int | str]:
    """All that a fault may name to have hit a run: its executor, and its worker by process id and incarnation."""
    holders: set[int | str] = {run.start.pid}
    if run.start.incarnation is not None:
        holders.add(run.start.incarnation)
    for delivery in deliveries_of(life, run):
        holders.add(delivery.pid)
        if delivery.incarnation is not None:
            holders.add(delivery.incarnation)
    return holders


def visibility_of(history: History, deliveries: Sequence[Operation]) -> float:
    """The longest lease among these, seconds."""
    usual = history.facts.visibility_timeout
    return max((float(each.detail.get("visibility") or usual) for each in deliveries), default=usual)


class Lost:
    """The runs that nobody saw leave, by process, and when executors wrote something down. Process ids are used again."""

    def __init__(self, history: History, lives: Mapping[str, Life]) -> None:
        self._by_pid: dict[int, list[tuple[Life, Run]]] = defaultdict(list)
        self._words: dict[int, list[float]] = defaultdict(list)
        for operation in history.of(Verb.START, Verb.END):
            self._words[operation.pid].append(operation.at)
        for life in lives.values():
            for run in life.runs:
                if run.end is None:
                    self._by_pid[run.start.pid].append((life, run))

    def beside(self, life: Life, run: Run) -> Iterator[tuple[Life, Run]]:
        """Runs that were lost in the process of this one while it was there; itself included, if it was lost."""
        until = life.gone_by(run)
        for other, theirs in self._by_pid.get(run.start.pid, ()):
            if theirs.began <= until and other.gone_by(theirs) >= run.began:
                yield other, theirs

    def has_words(self, pid: int, since: float, until: float) -> bool:
        """Whether an executor wrote something down in that time."""
        words = self._words.get(pid, [])
        return bisect_right(words, until) > bisect_right(words, since)
