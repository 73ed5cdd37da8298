"""Many values as one parameter, so that a statement is the same whatever their number: `f"… IN {MANY}"`, `as_set(values)`."""

from __future__ import annotations

import json
from collections.abc import Iterable

__all__ = ["MANY", "as_set"]

MANY = "(SELECT value FROM json_each(?))"


def as_set(values: Iterable[int | str]) -> str:
    return json.dumps(list(values))
