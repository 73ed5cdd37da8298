"""The application: a task that takes its time."""

from __future__ import annotations

import time

from stem_actors import Stem

__all__ = ["app", "resize"]

app = Stem()


@app.task(name="images.resize", queue="autoscale")
def resize(image: int, seconds: float) -> int:
    """Resize an image, as far as time goes."""
    time.sleep(seconds)
    return image
