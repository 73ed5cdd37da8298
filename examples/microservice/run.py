#!/usr/bin/env python3
"""Run the whole service without containers: a redis-server, a worker for each queue, the enqueue API.

    ./run.py                     everything, until Ctrl-C; workers drain first, Redis leaves last
    ./run.py worker greetings    one more worker for a queue, in another terminal

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
NAMESPACES = {"greetings": "customer-experience", "billing": "revenue", "reporting": "analytics"}
DRAINS_WITHIN, STARTS_WITHIN = 30.0, 10.0
_OK, _USAGE, _FAILED = 0, 64, 70


def main(words: list[str]) -> int:
    read_settings()
    is_private = not os.environ.get("STEM_BROKER_URL")
    port = os.environ["REDIS_PORT"]
    if is_private:
        os.environ["STEM_BROKER_URL"] = f"redis://127.0.0.1:{port}/0"
        os.environ["STEM_RESULT_BACKEND_URL"] = f"redis://127.0.0.1:{port}/1"
    match words:
        case ["worker", queue]:
            become_worker(queue)
        case []:
            return run(is_private, int(port))
    print(__doc__, file=sys.stderr)
    return _USAGE


def read_settings() -> None:
    for file in (HERE / ".env", HERE / ".env.example"):
        lines = file.read_text().splitlines() if file.exists() else []
        for name, is_set, value in (line.partition("=") for line in lines if not line.lstrip().startswith("#")):
            if is_set and value.strip():
                os.environ.setdefault(name.strip(), value.strip())


def become_worker(queue: str) -> NoReturn:
    os.chdir(HERE)
    command = worker_command(queue, f"microservice-extra-{os.getpid()}")
    os.execve(command[0], command, worker_environ(queue))


def worker_command(queue: str, name: str) -> list[str]:
    program = Path(sysconfig.get_path("scripts")) / "stem-node"
    if not program.exists():
        raise SystemExit(f"run: there is no stem-node in {program.parent}. Run: pip install -r requirements.txt")
    words = ["--app", "tasks:app", "--queue", queue, "--name", name, "--concurrency", os.environ["CONCURRENCY"]]
    return [str(program), *words, "--prefetch-multiplier", "2", "--admin", "127.0.0.1:0"]


def worker_environ(queue: str) -> dict[str, str]:
    return {**os.environ, "STEM_WORKER_NAMESPACE": NAMESPACES.get(queue, queue)}


# ---------------------------------------------------------------- everything


def run(is_private: bool, port: int) -> int:
    """Start everything, watch it, and end it in the right order; the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        if is_private:
            processes["redis"] = start("redis", redis_command(port))
            wait_until_open(port, processes["redis"])
        for number, queue in enumerate(os.environ["QUEUES"].split(), 1):
            name = f"microservice-worker-{number}"
            processes[name] = start(name, worker_command(queue, name), worker_environ(queue))
        processes["enqueuer"] = start("enqueuer", [sys.executable, "enqueuer.py"])
        return watch(processes)
    except KeyboardInterrupt:
        print("run: leaving; what runs comes to its end", flush=True)
        return _OK
    finally:
        end(processes)


def redis_command(port: int) -> list[str]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise SystemExit("run: there is no redis-server. On Debian: apt install redis-server; or set STEM_BROKER_URL.")
    data = HERE / os.environ["DATA_DIR"]
    data.mkdir(exist_ok=True)
    where = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(data)]
    return [program, *where, "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction", "--loglevel", "warning"]


def start(name: str, command: list[str], environ: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A process in a group of its own: Ctrl-C is for this script, which passes it on in order."""
    process = subprocess.Popen(command, cwd=HERE, env=environ, stdin=subprocess.DEVNULL, process_group=0)
    print(f"run: {name} (pid {process.pid})", flush=True)
    return process


def wait_until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        if process.poll() is not None:
            raise SystemExit(f"run: redis-server ended at once; is port {port} in use? Choose another REDIS_PORT.")
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"run: redis-server does not answer on port {port}") from None
            time.sleep(0.02)


def watch(processes: dict[str, subprocess.Popen[bytes]]) -> int:
    """Until something ends that nothing can stand in for. A worker can be done without: others have its queue, or it waits."""
    while True:
        for name, process in list(processes.items()):
            code = process.poll()
            if code is None:
                continue
            print(f"run: {name} ended with {code}", flush=True)
            del processes[name]
            if not name.startswith("microservice-worker"):
                return code if code > 0 else _FAILED
        time.sleep(0.1)


def end(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    """First those who enqueue and work, then Redis, which keeps what is left."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    redis = processes.pop("redis", None)
    for group in (list(processes.values()), [redis] if redis is not None else []):
        for process in group:
            process.terminate()
        for process in group:
            try:
                process.wait(DRAINS_WITHIN)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
