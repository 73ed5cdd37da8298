"""What all tests share: Hypothesis profiles, and which tests run only on demand.

`ci` is the default: no random seed, so that a run today and a run tomorrow try the same examples. `soak` looks for new ones:
`make soak`, or `pytest -m soak --hypothesis-profile=soak`.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; what we start would be deaf to it as well
    signal.signal(signal.SIGINT, signal.default_int_handler)

PERF = Path(__file__).parent / "perf"

# A busy machine makes one example slow now and then; what bounds a test is pytest's timeout.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("ci", PATIENT, derandomize=True, database=None)
settings.register_profile("soak", PATIENT, max_examples=5_000, stateful_step_count=200)
settings.load_profile("ci")  # --hypothesis-profile is read later and wins


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all of `tests/perf` as soak: figures from a shared machine are no gate."""
    for item in items:
        if item.path.is_relative_to(PERF):
            item.add_marker(pytest.mark.soak)
