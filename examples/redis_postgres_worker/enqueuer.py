"""Enqueue three items and wait for their results; show which server has which part."""

from __future__ import annotations

import subprocess
import sys

from tasks import app, process

from stem_actors import StemError

ITEMS = ("alpha", "beta", "gamma")
PATIENCE = 60.0


def main() -> int:
    with app:
        handles = app.enqueue_many(process.call(item) for item in ITEMS)
        for item, handle in zip(ITEMS, handles, strict=True):
            print(f"enqueued: {handle.id} for {item}", flush=True)
        for handle in handles:
            print(f"done: {handle.get(timeout=PATIENCE)}", flush=True)
    print("\n$ stem health", flush=True)
    return subprocess.run(["stem", "health"], check=False, stdin=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StemError as error:
        sys.exit(f"enqueuer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
