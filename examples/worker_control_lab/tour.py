#!/usr/bin/env python3
"""One command after the other to the workers of the lab, each shown with its output. Start ./run.py first.

Exits with 0 when all went as the README says.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from run import HERE, WORKERS, read_settings

PATIENCE = 30.0  # seconds
ALPHA, BRAVO = (f"{name}-1" for name in WORKERS)


def main() -> int:
    read_settings()
    until("both workers answer", lambda: {reply["workerId"] for reply in ask("ping")} == {ALPHA, BRAVO})
    show("worker", "ping")
    until("both workers are busy", lambda: all(active(reply) for reply in ask("inspect")))
    show("worker", "stats", "--worker", ALPHA)
    show("worker", "inspect", "--no-include-revoked")

    victim = active(ask("inspect", "--worker", ALPHA)[0])[0]["id"]
    show("task", "revoke", victim, "--terminate", "--reason", "shown in the lab", "--requester", "tour")
    until("it is cancelled", lambda: state(victim) == "cancelled")
    show("task", "show", victim)

    before = ask("ping", "--worker", BRAVO)[0]["incarnation"]
    handed_back = [run["id"] for run in active(ask("inspect", "--worker", BRAVO)[0])]
    show("worker", "shutdown", "--worker", BRAVO, "--mode", "soft")
    until("its node has started another", lambda: incarnations(BRAVO) not in ([], [before]))
    until("what it ran begins again", lambda: all(state(each) == "running" for each in handed_back))
    show("worker", "ping")
    print("\ntour: that was all; Ctrl-C ends ./run.py", flush=True)
    return 0


def stem(*words: str) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts")) / "stem"
    return subprocess.run([str(program), *words], cwd=HERE, capture_output=True, text=True, check=False)


def show(*words: str) -> None:
    """Run a command as a user would, and stop where it fails."""
    print(f"\n$ stem {' '.join(words)}", flush=True)
    done = stem(*words)
    print(f"{done.stdout}{done.stderr}".rstrip(), flush=True)
    if done.returncode != 0:
        raise SystemExit(f"tour: it exited with {done.returncode}")


def ask(command: str, *words: str) -> list[dict[str, Any]]:
    """What the workers answered, those that did."""
    done = stem("worker", command, *words, "--json")
    replies: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return [reply for reply in replies if reply["status"] == "ok"]


def active(reply: dict[str, Any]) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = reply["payload"]["active"]
    return runs


def incarnations(worker: str) -> list[str]:
    return [reply["incarnation"] for reply in ask("ping", "--worker", worker, "--timeout", "1s")]


def state(task_id: str) -> str:
    return str(json.loads(stem("task", "show", task_id, "--json").stdout)["state"])


def until(what: str, is_so: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"tour: waited {PATIENCE:g} s in vain until {what}")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
