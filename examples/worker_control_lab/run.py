#!/usr/bin/env python3
"""Start the lab without containers: a redis-server, the workers control-alpha and control-bravo, and tasks that take long.

    ./run.py            until Ctrl-C
    ./run.py enqueue    only the tasks, for workers that are up already
    ./tour.py           in another terminal: one command after the other to those workers

Settings come from the environment, then .env, then .env.example. With STEM_BROKER_URL set, no redis-server is started.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).parent.resolve()
WORKERS = ("control-alpha", "control-bravo")
LEAVES_WITHIN, STARTS_WITHIN = 30.0, 10.0


def main(words: list[str]) -> int:
    has_own_redis = read_settings()
    if words == ["enqueue"]:
        enqueue()
        return 0
    if words:
        print(__doc__, file=sys.stderr)
        return 64
    signal.signal(signal.SIGTERM, _interrupt)
    redis: subprocess.Popen[bytes] | None = None
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        if has_own_redis:
            redis = start("redis", redis_command())
            wait_until_open(redis)
        for name in WORKERS:
            nodes.append(start(name, node_command(name)))
        enqueue()
        while all(node.poll() is None for node in nodes) and (redis is None or redis.poll() is None):
            time.sleep(0.1)
        print("run: something has ended by itself, see above", flush=True)
        return 70
    except KeyboardInterrupt:
        print("run: leaving", flush=True)
        return 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end(nodes)
        end([redis] if redis is not None else [])


def read_settings() -> bool:
    """Complete the environment; whether we are to start a redis-server."""
    for file in (HERE / ".env", HERE / ".env.example"):
        lines = file.read_text().splitlines() if file.exists() else []
        for name, is_set, value in (line.partition("=") for line in lines if not line.lstrip().startswith("#")):
            if is_set and value.strip():
                os.environ.setdefault(name.strip(), value.strip())
    if os.environ.get("STEM_BROKER_URL"):
        return False
    os.environ["STEM_BROKER_URL"] = f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/0"
    return True


def redis_command() -> list[str]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise SystemExit("run: there is no redis-server. On Debian: apt install redis-server; or set STEM_BROKER_URL.")
    return [program, "--bind", "127.0.0.1", "--port", os.environ["REDIS_PORT"], "--save", "", "--loglevel", "warning"]


def node_command(name: str) -> list[str]:
    program = Path(sysconfig.get_path("scripts")) / "stem-node"
    if not program.exists():
        raise SystemExit(f"run: there is no stem-node in {program.parent}. Run: pip install -r requirements.txt")
    words = ["--app", "tasks:app", "--queue", "control", "--name", name, "--concurrency", os.environ["CONCURRENCY"]]
    return [str(program), *words, "--admin", "127.0.0.1:0"]


def start(name: str, command: list[str]) -> subprocess.Popen[bytes]:
    """A process in a group of its own: Ctrl-C is for this script, which passes it on in order."""
    process = subprocess.Popen(command, cwd=HERE, stdin=subprocess.DEVNULL, process_group=0)
    print(f"run: {name} (pid {process.pid})", flush=True)
    return process


def wait_until_open(redis: subprocess.Popen[bytes]) -> None:
    port, deadline = int(os.environ["REDIS_PORT"]), time.monotonic() + STARTS_WITHIN
    while True:
        if redis.poll() is not None:
            raise SystemExit(f"run: redis-server ended at once; is port {port} in use? Choose another REDIS_PORT.")
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"run: redis-server does not answer on port {port}") from None
            time.sleep(0.02)


def enqueue() -> None:
    sys.path.insert(0, str(HERE))
    from tasks import app, take_long

    with app:
        for number in range(1, int(os.environ["TASKS"]) + 1):
            handle = take_long.enqueue(f"number-{number}", float(os.environ["TASK_SECONDS"]))
            print(f"run: enqueued number-{number} as {handle.id}", flush=True)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(LEAVES_WITHIN)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
