"""Index Python's standard library with Stem while its processes are killed, then prove that nothing was lost.

    make demo                                         everything, well under a minute
    python examples/stdlib_index/demo.py --files 300  a part of it

Exits with 0 when everything is proven, 1 when something is missing, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import proof
import runs
import tasks
from display import Display
from kills import PLAN, Kill
from node import PROGRAMS, Node

from stem_actors import Handle, Stem, StemError

STDLIB = Path(sysconfig.get_path("stdlib")).resolve()
DEADLINE = 90.0
_OK, _MISSING, _INTERRUPTED, _TERMINATED = 0, 1, 130, 143


class GaveUp(Exception):
    """The demo cannot go on, and why."""


def main() -> int:
    args = _parser().parse_args()
    signal.signal(signal.SIGTERM, _terminate)
    directory = (args.directory or Path(tempfile.mkdtemp(prefix="stem-demo-"))).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        return run(directory, args.files, args.keep)
    except (GaveUp, StemError) as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return _MISSING
    except KeyboardInterrupt:
        print("demo: interrupted; the node was stopped", file=sys.stderr)
        return _INTERRUPTED
    finally:
        if not args.keep:
            shutil.rmtree(directory, ignore_errors=True)


def run(directory: Path, most_files: int | None, is_kept: bool) -> int:
    """The demo, in the order in which one would tell it; the exit code."""
    began = time.monotonic()
    paths = choose_files(most_files)
    calls = [(path, task.call(path)) for path in paths for task in tasks.ALL]
    if not (PROGRAMS / "stem-node").exists():
        raise GaveUp(f"there is no stem-node in {PROGRAMS}. `make demo` installs it; so does `pip install .`.")
    database, runs_directory = directory / "stem.db", directory / "runs"
    if database.exists():
        raise GaveUp(f"{database} is there already. Remove it, or name another --directory.")
    runs_directory.mkdir(exist_ok=True)
    display = Display(len(calls))
    display.say(f"{len(paths):,} files of {STDLIB}, {len(calls):,} tasks, everything in {directory}")

    broker = f"sqlite:///{database}"
    node = Node(broker, directory / "node.log", {runs.VARIABLE: str(runs_directory)})
    try:
        display.say(f"node: {' '.join(node.command)}  (pid {node.pid})")
        with Stem(broker=broker) as app:
            handles = dict(zip(app.enqueue_many(call for _, call in calls), (path for path, _ in calls), strict=True))
            kills = watch(app, node, display, len(calls), began + DEADLINE)
            display.say(
                f"{len(calls):,} tasks done {time.monotonic() - began:.1f} s after the start, {len(kills)} kills survived"
            )
            checks = prove(app, node, display, handles, kills, runs_directory)
        show_metrics(node, display)
        checks.append(check_exit(node))
    finally:
        if node.poll() is None:
            node.leave()
    display.show_checks(checks)
    if not all(check.holds for check in checks):
        display.say(f"Not proven. The node's log: {node.log}")
        return _MISSING
    display.say(f"Proven in {time.monotonic() - began:.1f} s: every file was indexed, nothing was lost.")
    if is_kept:
        show_next_steps(display, node, broker, next(iter(handles)))
    return _OK


def choose_files(most: int | None) -> list[str]:
    """All files of the standard library, or so many evenly spread over it."""
    found = sorted(
        str(path) for path in STDLIB.rglob("*.py") if not {"site-packages", "dist-packages"} & set(path.parts) and path.is_file()
    )
    if most is not None and most < len(found):
        found = [found[number * len(found) // most] for number in range(most)]
    return found


def watch(app: Stem, node: Node, display: Display, total: int, deadline: float) -> list[Kill]:
    """Show progress and kill as planned until nothing is left to do; what was killed.

    Raises:
        GaveUp: the node ended, or it is not done at `deadline`.
    """
    plan, kills = list(PLAN), list[Kill]()
    redelivered, asked_at, quiet = 0, 0.0, 0
    with display:
        while quiet < 2:  # a task that moves between two counts may be in neither
            left = sum(depth.pending + depth.inflight + depth.delayed for depth in app.stores.broker.depths())
            quiet = quiet + 1 if left == 0 else 0
            if time.monotonic() - asked_at >= 1.0:
                redelivered, asked_at = node.redeliveries().total(), time.monotonic()
            display.advance(total - left, redelivered)
            done = (total - left) / total
            if plan and left and done >= plan[0].at and (kill := plan[0].kill(node, app, done)):
                display.say(f"** {done:.0%} done: killed {kill.victim}")
                kills.append(kill)
                del plan[0]
            if (code := node.poll()) is not None:
                raise GaveUp(f"the node ended with code {code} and {left:,} tasks to do. Its last words:\n{node.last_words()}")
            if time.monotonic() > deadline:
                raise GaveUp(f"{left:,} of {total:,} tasks are not done after {DEADLINE:g} s. The node's log: {node.log}")
            time.sleep(0.1)
    return kills


def prove(
    app: Stem, node: Node, display: Display, handles: dict[Handle[tasks.Facts], str], kills: Sequence[Kill], runs_directory: Path
) -> list[proof.Check]:
    """Show what was found out, and check it against books of our own."""
    results, succeeded = proof.collect(handles)
    noted = runs.read_all(runs_directory)
    reruns = proof.account(noted, kills)
    display.show_most_complex(results, STDLIB)
    node.wait_for_reports(timeout=3.0)
    display.show_kills(kills, reruns, node.redeliveries())
    missed = [f"no {target.name}: the work was over too soon" for target in PLAN if target.name not in {k.name for k in kills}]
    return [
        proof.Check("kills in front of you", ", ".join(kill.name for kill in kills), missed),
        succeeded,
        proof.check_results(results, len(tasks.ALL)),
        proof.check_runs(handles, noted, reruns),
        proof.check_queue(app),
    ]


def check_exit(node: Node) -> proof.Check:
    """Have the node leave, as an init system would."""
    began = time.monotonic()
    code = node.leave()
    problems = [] if code == 0 else [f"see {node.log}:\n{node.last_words()}"]
    return proof.Check("the node leaves on SIGTERM with exit code 0", f"{code} after {time.monotonic() - began:.1f} s", problems)


def show_metrics(node: Node, display: Display) -> None:
    """What an operator would see. A worker that is killed takes with it what it counted in its last second."""
    display.say(f"\nMetrics: curl http://{node.address}/metrics  (while the node runs), for instance")
    for sample in node.metrics():
        if sample.name in ("stem_actor_restarts_total", "stem_executor_deaths_total", "stem_redeliveries_total"):
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            display.say(f"  {sample.name}{{{labels}}} {sample.value:g}")


def show_next_steps(display: Display, node: Node, broker: str, example: Handle[tasks.Facts]) -> None:
    display.say("\nWhat to try next:")
    for command in (
        f". {PROGRAMS / 'activate'}",
        f"stem queue list --broker {broker}",
        f"stem task show {example.id} --broker {broker}",
        f"stem worker status --once --broker {broker}",
        f"cd {Path(__file__).parent} && {' '.join(node.command)}",
        f"stem enqueue stdlib.definitions --args '[\"{STDLIB / 'ast.py'}\"]' --broker {broker} --wait 10s",
        f"rm -r {node.log.parent}",
    ):
        display.say(f"  {command}")


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", metavar="N", type=int, help="index N files, spread over the library (default: all)")
    parser.add_argument("--directory", metavar="DIR", type=Path, help="where the database goes (default: a new one in /tmp)")
    parser.add_argument(
        "--keep", action=argparse.BooleanOptionalAction, default=True, help="keep it, so that you can look at it afterwards"
    )
    return parser


def _terminate(*_: object) -> NoReturn:
    sys.exit(_TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
