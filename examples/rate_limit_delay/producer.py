"""Enqueue more pages than the rate allows, and some with a delay; tell when each was let through."""

from __future__ import annotations

import sys
import time

from tasks import app, render

AT_ONCE, DELAYED = 9, 3
DELAY = 5.0
PATIENCE = 60.0


def main() -> int:
    with app:
        began = time.time()
        waiting = {page: render.enqueue(page) for page in range(1, AT_ONCE + 1)}
        later = render.options(countdown=DELAY)
        waiting |= {page: later.enqueue(page) for page in range(AT_ONCE + 1, AT_ONCE + DELAYED + 1)}
        print(f"enqueued {AT_ONCE} pages at once and {DELAYED} for {DELAY:g} s later; 3 a second may start", flush=True)
        starts = {page: handle.get(timeout=PATIENCE) - began for page, handle in waiting.items()}
        for page, start in sorted(starts.items(), key=lambda each: each[1]):
            denied = waiting[page].status().delivery_count - 1
            delay = f", delayed by {DELAY:g} s" if page > AT_ONCE else ""
            times = "once" if denied == 1 else f"{denied} times"
            print(f"granted: page {page:2} after {start:5.2f} s, denied {times} before{delay}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
