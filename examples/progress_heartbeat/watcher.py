"""Enqueue a report and tell of its progress, and of the workers' heartbeats, as they are stored."""

from __future__ import annotations

import sys
import time

from tasks import app, progress_demo

PATIENCE = 120.0
LOOK_EVERY = 0.1


def main() -> int:
    with app:
        handle = progress_demo.enqueue("the monthly report")
        shown: set[object] = set()
        deadline = time.monotonic() + PATIENCE
        while not (record := handle.status()).state.is_final:
            if time.monotonic() > deadline:
                print("no worker has done it; is one running?", file=sys.stderr)
                return 70
            progress = record.meta.get("progress")
            if progress and progress["percent"] not in shown:
                shown.add(progress["percent"])
                data = progress["data"]
                print(f"progress: {progress['percent']:.1f} (step {data['step']} of {data['of']})", flush=True)
            for beat in app.stores.heartbeats.list_heartbeats():
                if beat["timestamp"] not in shown:
                    shown.add(beat["timestamp"])
                    print(f"heartbeat: worker {beat['workerId']}, {beat['inflight']} in flight", flush=True)
            time.sleep(LOOK_EVERY)
        print(f"{record.state.value}: {handle.get(timeout=5)}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
