"""Stem's chaos suite: runs tasks while faults are injected, records what happened, and judges it."""
