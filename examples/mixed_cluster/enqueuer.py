"""Enqueue by both brokers from one program, wait for the results, and show the workers of each."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tasks import postgres_app, postgres_only, redis_app, redis_only

from stem_actors import Stem, StemError

VARIABLES = tuple(f"{prefix}_STEM_{name}" for prefix in ("REDIS", "POSTGRES") for name in ("BROKER_URL", "RESULT_BACKEND_URL"))
PATIENCE = 60.0


def main() -> int:
    if missing := [name for name in VARIABLES if not os.environ.get(name)]:
        print(
            f"enqueuer: {', '.join(missing)} not set: it enqueues by two brokers, and has to know each by name", file=sys.stderr
        )
        return 64
    with redis_app, postgres_app:
        handles = [
            redis_only.enqueue("cache-warmup"),
            redis_only.enqueue("metrics-snapshot"),
            postgres_only.enqueue("billing-report"),
            postgres_only.enqueue("inventory-rollup"),
        ]
        for handle in handles:
            print(f"done: {handle.get(timeout=PATIENCE)}, as {handle.id}", flush=True)
        for prefix, app in (("REDIS", redis_app), ("POSTGRES", postgres_app)):
            wait_for_a_heartbeat(app)
            show_workers(prefix)
    return 0


def wait_for_a_heartbeat(app: Stem) -> None:
    """A worker may have done its tasks before it first says that it is there."""
    deadline = time.monotonic() + PATIENCE
    while not app.stores.heartbeats.list_heartbeats():
        if time.monotonic() > deadline:
            raise SystemExit(f"enqueuer: no worker says that it is there, {PATIENCE:g} s after it did its tasks")
        time.sleep(0.1)


def show_workers(prefix: str) -> None:
    """What an operator sees of one of the two. Each command looks at one system; its settings say at which."""
    own = {name.removeprefix(f"{prefix}_"): value for name, value in os.environ.items() if name.startswith(f"{prefix}_STEM_")}
    print(f"\n$ stem worker status     # with what is in {', '.join(f'{prefix}_{name}' for name in sorted(own))}", flush=True)
    subprocess.run(["stem", "worker", "status"], env={**os.environ, **own}, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StemError as error:
        sys.exit(f"enqueuer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
