"""The application that has the tasks of all built-in workloads. Each workload's file adds its own; `all.py` imports them."""

from __future__ import annotations

from stem_actors import Stem

__all__ = ["APP", "app"]

APP = "stem_chaos.workload.all:app"

app = Stem()
