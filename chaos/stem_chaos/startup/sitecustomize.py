"""Adds to this process's wall clock what the file named by `STEM_CHAOS_CLOCK` holds: seconds, as a double.

Loaded by Python itself at the start of a node and of every process below it. Only `time.time` is stepped. libfaketime would
reach further, but as long as the monotonic clock is to go on undisturbed, its releases up to 0.9.10 make every `time.sleep` of
Python 3.11 and later fail.
"""

import importlib
import mmap
import os
import struct
import sys
import time


def _step(path: str) -> None:
    with open(path, "rb") as file:
        seconds = memoryview(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ))
    real, unpack = time.time, struct.Struct("d").unpack_from

    def stepped() -> float:
        return real() + float(unpack(seconds)[0])

    time.time = stepped


def _load_the_one_that_we_hide() -> None:
    here, path = os.path.dirname(os.path.abspath(__file__)), list(sys.path)
    ours = sys.modules.pop("sitecustomize", None)
    sys.path[:] = [each for each in path if os.path.abspath(each) != here]
    try:
        importlib.import_module("sitecustomize")
    except ImportError:
        if ours is not None:
            sys.modules["sitecustomize"] = ours
    finally:
        sys.path[:] = path


if "STEM_CHAOS_CLOCK" in os.environ:
    _step(os.environ["STEM_CHAOS_CLOCK"])
    _load_the_one_that_we_hide()
