"""The suite finds what it is there for: nodes run on brokers that are broken on purpose, and the verdict names the promise."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.fixtures.redis_server import need_server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

PROGRAM = Path(sysconfig.get_path("scripts")) / "stem-chaos"
ROOT = Path(__file__).parents[2]
BROKEN = 1
SEEDS = range(20, 28)
"""One after another, until the breakage is found: a seed fixes tasks and faults, but not what they meet when they strike."""

FOUND_BY = {
    "unfenced_ack": "fencing",
    "renew_by_claim": "fencing",
    "retry_in_two_steps": "no-loss",
    "result_after_ack": "no-loss",
    "reclaim_with_a_lock": "recovery",
}
CASES = [
    *((breakage, "sqlite") for breakage in FOUND_BY),
    ("result_after_ack", "redis"),
    ("reclaim_with_a_lock", "redis"),
]


@pytest.mark.parametrize(("breakage", "broker"), CASES)
def test_a_broken_broker_is_found_by_the_smoke_suite(breakage: str, broker: str, tmp_path: Path) -> None:
    if broker == "redis":
        need_server()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STEM_", "PYTEST_"))}
    environ = {**kept, "PYTHONPATH": str(ROOT), "STEM_CHAOS_PROBE": f"tests.fixtures.sabotage:{breakage}"}
    for seed in SEEDS:
        directory = tmp_path / str(seed)
        words = ["run", "smoke", "--broker", broker, "--replay", str(seed), "--directory", str(directory)]
        done = subprocess.run([PROGRAM, *words], cwd=ROOT, env=environ, text=True, capture_output=True, timeout=280, check=False)
        findings = json.loads((directory / "report.json").read_text())["findings"]
        broken = {finding["checker"] for finding in findings if finding["validity"] == "invalid"}
        assert (done.returncode == BROKEN) == bool(broken), done.stdout + done.stderr
        if FOUND_BY[breakage] in broken:
            return
    pytest.fail(f"no run found {breakage}")
