"""How many no-op tasks a second one worker with two executors gets done on SQLite, and what each process spends on one.

    python -m tests.perf.throughput [TASKS] [--synchronous normal] [--argument BYTES]

A script, not a test: figures from a shared machine are no gate. Processor time per task is steadier than the rate.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

from stem_actors import Stem

PORT = 19808

app = Stem(broker=os.environ.get("STEM_BROKER_URL"))


@app.task(name="noop")
def noop(argument: str) -> None:
    """Nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=int, nargs="?", default=100_000)
    parser.add_argument("--synchronous", default="full", choices=["full", "normal"])
    parser.add_argument("--argument", type=int, default=8, help="bytes of the one argument")
    parser.add_argument("--concurrency", default="2")
    parser.add_argument("--broker", help="default: a new SQLite file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        broker = options.broker or f"sqlite:///{directory}/stem.db"
        os.environ |= {"STEM_BROKER_URL": broker, "STEM_SQLITE_SYNCHRONOUS": options.synchronous}
        measure(options.tasks, "x" * options.argument, broker, options.concurrency, Path(directory))


def measure(tasks: int, argument: str, broker: str, concurrency: str, directory: Path) -> None:
    producer = Stem(broker=broker)
    calls = [noop.call(argument) for _ in range(tasks)]
    started = time.perf_counter()
    producer.enqueue_many(calls)
    print(f"bulk enqueue      {tasks / (time.perf_counter() - started):10,.0f} /s")
    log = (directory / "node.log").open("wb")
    command = [
        "-m",
        "stem_cli.node_command",
        "--app",
        "tests.perf.throughput",
        "--admin",
        f"127.0.0.1:{PORT}",
        "--concurrency",
        concurrency,
    ]
    node = subprocess.Popen([sys.executable, *command], stderr=log, env=os.environ | {"PYTHONPATH": _import_path()})
    try:
        rate = _follow(producer, tasks)
        print(f"throughput        {rate:10,.0f} /s")
        print(f"settled at once   {_mean_batch():10.1f} deliveries")
        for name, seconds in _processor_time(node.pid):
            print(f"{name:<18}{seconds / tasks * 1e6:10.1f} µs of processor time per task")
    finally:
        node.terminate()
        code = node.wait(30)
    if code:
        print((directory / "node.log").read_text(), file=sys.stderr)
        sys.exit(code)


def _follow(producer: Stem, tasks: int) -> float:
    """Tasks a second between the first tenth and the last."""
    marks: list[tuple[float, int]] = []
    while True:
        (depth,) = producer.stores.broker.depths(["default"])
        left = depth.pending + depth.inflight
        marks.append((time.perf_counter(), tasks - left))
        if left == 0:
            break
        time.sleep(0.02)
    begin = next(mark for mark in marks if mark[1] >= tasks / 10)
    return (tasks - begin[1]) / (marks[-1][0] - begin[0])


def _processor_time(node: int) -> Iterator[tuple[str, float]]:
    tree = psutil.Process(node)
    for worker in tree.children():
        yield "worker", sum(worker.cpu_times()[:2])
        for server in worker.children():
            for number, executor in enumerate(server.children()):
                yield f"executor {number}", sum(executor.cpu_times()[:2])


def _mean_batch() -> float:
    """From the node's metrics, which its workers feed each second."""
    time.sleep(1.2)
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics") as page:
        lines = page.read().decode().splitlines()
    values = {line.split("{")[0]: float(line.split()[-1]) for line in lines if line.startswith("stem_settle_batch_size_")}
    return values["stem_settle_batch_size_sum"] / values["stem_settle_batch_size_count"]


def _import_path() -> str:
    return os.pathsep.join(entry for entry in sys.path if entry)


if __name__ == "__main__":
    main()
