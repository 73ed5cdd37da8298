"""The application: a task of which three may start each second, whoever runs it."""

from __future__ import annotations

import time

from stem_actors import Stem

__all__ = ["app", "render"]

app = Stem()


@app.task(name="pages.render", queue="throttled", rate_limit="3/s")
def render(page: int) -> float:
    """Render a page for a service that allows three a second; returns when it started."""
    return time.time()
