"""The application of the built-in workloads. Each workload's file adds its tasks; a node imports those that its run needs."""

from __future__ import annotations

from stem_actors import Stem

__all__ = ["APP", "app"]

APP = "stem_chaos.workload.tasks:app"

app = Stem()
