"""Enqueue invoices that fail, look at them with the commands of an operator, replay them, and see them processed."""

from __future__ import annotations

import subprocess
import sys

from tasks import app, process_invoice

from stem_actors import TaskFailed

INVOICES = ("INV-1001", "INV-1002", "INV-1003")
PATIENCE = 60.0


def stem(*words: str) -> None:
    """Run a command as at a prompt, and show it."""
    print(f"\n$ stem {' '.join(words)}", flush=True)
    subprocess.run(["stem", *words], check=True, stdin=subprocess.DEVNULL)


def main() -> int:
    with app:
        handles = [process_invoice.enqueue(number) for number in INVOICES]
        for number, handle in zip(INVOICES, handles, strict=True):
            try:
                handle.get(timeout=PATIENCE)
            except TaskFailed as error:
                print(f"failed: {number}: {error}", flush=True)
        first = handles[0].id
        stem("dlq", "list", "--queue", "invoices")
        stem("dlq", "show", "--queue", "invoices", "--id", first)
        stem("dlq", "replay", "--queue", "invoices", "--dry-run")
        stem("dlq", "replay", "--queue", "invoices", "--yes")
        print()
        for handle in handles:
            print(f"processed: {handle.get(timeout=PATIENCE)}", flush=True)
        stem("task", "show", first, "--json")
        stem("dlq", "list", "--queue", "invoices")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
