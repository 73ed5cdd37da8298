"""Enqueue a report on each region, wait for them, and show what Postgres holds of them."""

from __future__ import annotations

import subprocess
import sys

from tasks import app, generate_report

from stem_actors import StemError

REGIONS = ("us-east", "eu-west", "ap-south")
PATIENCE = 60.0


def main() -> int:
    with app:
        handles = app.enqueue_many(generate_report.call(region) for region in REGIONS)
        for region, handle in zip(REGIONS, handles, strict=True):
            print(f"enqueued: {handle.id} on {region}", flush=True)
        for handle in handles:
            print(f"done: {handle.get(timeout=PATIENCE)}", flush=True)
    print("\n$ stem task list", flush=True)
    return subprocess.run(["stem", "task", "list"], check=False, stdin=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StemError as error:
        sys.exit(f"enqueuer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
