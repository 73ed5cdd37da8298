"""The application that the nodes of a cluster are started with (`--app stem_chaos.application:app`): another one, recorded.

`STEM_CHAOS_APP` names the other, as `--app` would. Its tasks, options, middleware and payload types stay what they are; outermost
around each run comes `recording.py`. That is for executors only: whoever enqueues imports the other application itself.
"""

from __future__ import annotations

import importlib
import operator
import os

from stem_actors import Middleware, Stem
from stem_actors.config import split_app
from stem_actors.errors import ConfigError
from stem_chaos.history import Recorder, run_directory
from stem_chaos.points import Points, write_last_words
from stem_chaos.recording import Recording

__all__ = ["APP_VARIABLE", "app"]

APP_VARIABLE = "STEM_CHAOS_APP"


def _recorded() -> Stem:
    """The application that `STEM_CHAOS_APP` names, with the middleware."""
    name = os.environ.get(APP_VARIABLE, "").strip()
    if not name:
        raise ConfigError(f"{APP_VARIABLE} names no application for {__name__} to record; it is MODULE[:ATTRIBUTE]")
    module, attribute = split_app(name)
    target: object = operator.attrgetter(attribute)(importlib.import_module(module))
    if not isinstance(target, Stem):
        raise ConfigError(f"{APP_VARIABLE} is {name!r}, and that is no Stem application but a {type(target).__name__}")
    directory = run_directory()
    recorder = Recorder(directory, f"executor-{os.getpid()}")
    points = Points(directory, lambda point: write_last_words(recorder, point, [os.getpid()]))
    recording = Recording(recorder, points)
    target.middlewares.insert(0, Middleware(execute=recording.execute, aexecute=recording.aexecute))
    return target


app: Stem = _recorded()
