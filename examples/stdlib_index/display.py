"""What the user sees: a line that moves on a terminal, a line each second elsewhere, and the summary."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from kills import Kill
from proof import Check, Reruns
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from tasks import Facts

__all__ = ["Display"]

_PROBLEMS_SHOWN = 5
_CAUSES = {"died": "whose executor died", "lapsed": "whose lease ran out", "interrupted": "handed back"}


class Display:
    """Writes to standard output. Inside its `with` block there is progress to show."""

    def __init__(self, total: int) -> None:
        self._console = Console(highlight=False, markup=False, soft_wrap=True)
        self._is_live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._total = total
        self._printed_at = time.monotonic()
        self._past = deque([(self._printed_at, 0)], maxlen=30)
        figures = TextColumn("{task.completed:,.0f}/{task.total:,.0f} tasks {task.fields[figures]}")
        self._progress = Progress(BarColumn(30), figures, console=self._console, transient=True, disable=not self._is_live)
        self._bar = self._progress.add_task("", total=total, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None) -> None:
        self._progress.stop()

    def say(self, text: str = "") -> None:
        self._console.print(text)

    def advance(self, done: int, redelivered: int) -> None:
        """Show how far it is. Call often; a line a second is printed where lines stay."""
        now = time.monotonic()
        then, done_then = self._past[0]
        self._past.append((now, done))
        figures = f"{(done - done_then) / max(0.1, now - then):4,.0f}/s  {redelivered} redelivered"
        self._progress.update(self._bar, completed=done, figures=figures)
        if not self._is_live and (now - self._printed_at >= 1.0 or done == self._total):
            self._printed_at = now
            self.say(f"{done:6,}/{self._total:,} tasks {figures}")

    # ------------------------------------------------------------ the summary

    def show_kills(self, kills: Sequence[Kill], reruns: Reruns, redeliveries: Counter[str]) -> None:
        table = _table("What was killed", "", "when", "runs to do again")
        for kill in kills:
            table.add_row(kill.name, f"{kill.done:.0%}", str(reruns.causes[kill.name]))
        self._console.print(table)
        causes = ", ".join(f"{count} {_CAUSES.get(cause, cause)}" for cause, count in redeliveries.items())
        self.say(f"redelivered: {redeliveries.total()} ({causes or 'none'})")

    def show_most_complex(self, results: Mapping[str, Sequence[Facts]], root: Path) -> None:
        merged = [{key: value for facts in found for key, value in facts.items()} for found in results.values()]
        table = _table("The five most complex files", "", "branches", "functions", "classes", "tokens")
        for facts in sorted(merged, key=lambda facts: -facts.get("branches", 0))[:5]:
            figures = (f"{facts.get(name, 0):,}" for name in ("branches", "functions", "classes", "tokens"))
            table.add_row(str(Path(facts["path"]).relative_to(root)), *figures)
        self._console.print(table)
        modules = Counter(module for facts in merged for module in facts.get("imports", ()))
        self.say("most imported: " + ", ".join(f"{module} ({count:,})" for module, count in modules.most_common(6)))
        self.say(f"not valid Python, on purpose: {sum('broken' in facts for facts in merged)} files")

    def show_checks(self, checks: Sequence[Check]) -> None:
        self.say("\nProof")
        for check in checks:
            self._console.print(f"  {'ok' if check.holds else 'NO'}  {check.claim}: {check.outcome}", style=_style(check))
        for check in checks:
            for problem in check.problems[:_PROBLEMS_SHOWN]:
                self.say(f"  {problem}")
            if (more := len(check.problems) - _PROBLEMS_SHOWN) > 0:
                self.say(f"  … and {more:,} more")


def _table(title: str, *columns: str) -> Table:
    """A table whose first column holds words and the others numbers."""
    table = Table(columns[0], title=title, title_justify="left", box=SIMPLE)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _style(check: Check) -> str:
    return "green" if check.holds else "bold red"
