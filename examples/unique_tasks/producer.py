"""Enqueue a digest for user 42 twice, and one for user 7; tell which tasks that came to."""

from __future__ import annotations

import sys

from tasks import app, send_digest

PATIENCE = 60.0


def main() -> int:
    with app:
        first = send_digest.enqueue(42)
        print(f"enqueued: {first.id} for user 42", flush=True)
        print(f"sent: {first.get(timeout=PATIENCE)}", flush=True)
        again = send_digest.enqueue(42)
        print(f"enqueued: {again.id} for user 42, " + ("the same task" if again == first else "another task"), flush=True)
        other = send_digest.enqueue(7)
        print(f"enqueued: {other.id} for user 7", flush=True)
        print(f"sent: {other.get(timeout=PATIENCE)}", flush=True)
        key = first.status().meta["stem.unique.key"]
        (held,) = app.stores.broker.claims(key, "mail")
        print(f"key: {key} is held by {held.owner} and has kept out {held.refusals}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
