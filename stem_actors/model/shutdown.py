"""How a worker leaves."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ShutdownMode"]


class ShutdownMode(IntEnum):
    """From polite to abrupt; a later mode overrides an earlier one."""

    WARM = 1
    SOFT = 2
    HARD = 3
