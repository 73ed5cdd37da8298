"""The comparison itself: what it makes of samples, and a small run of it all. Marked soak, like all of this folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.perf.comparison import Result, ratio
from tests.perf.environment import ROOT
from tests.perf.servers import SERVERS
from tests.perf.systems import ON_BROKER, SYSTEMS


def result(**samples: list[float | None]) -> Result:
    found = Result("a system")
    for figure, values in samples.items():
        for number, value in enumerate(values):
            found.add(figure.partition("_")[0], number, told(figure, value))
    return found


def told(figure: str, value: float | None, repeated: int = 0) -> dict[str, object]:
    check = {"expected": 10, "missing": 0, "repeated": repeated}
    return {"title": "a system", "versions": {}, "share": 1.0, "keeps_results": True, "values": {figure: value}, "check": check}


def test_ratios_are_taken_within_each_round() -> None:
    stem = result(throughput=[1000.0, 2000.0, 900.0], latency_p50=[1.0, 2.0, 1.0])
    other = result(throughput=[100.0, 100.0, 100.0], latency_p50=[4.0, 4.0, 4.0])
    assert ratio(other, stem, "throughput") == 10.0
    assert ratio(other, stem, "latency_p50") == 4.0
    assert ratio(stem, stem, "throughput") == 1.0


def test_there_is_no_ratio_to_what_could_not_be_measured() -> None:
    stem = result(recovery=[0.01])
    assert ratio(result(recovery=[None]), stem, "recovery") is None
    assert ratio(result(), stem, "recovery") is None


def test_what_took_too_long_counts_as_later_than_all_else() -> None:
    assert result(recovery=[1.0, None, 3.0]).value("recovery") == 3.0
    assert result(recovery=[1.0, None]).value("recovery") is None
    assert result().value("recovery") is None


def test_what_cannot_be_done_is_not_tried_again() -> None:
    found = result(bulk=[None], throughput=[5.0])
    found.failures["latency"] = "why"
    assert [name for name in ("bulk", "throughput", "latency", "recovery") if found.is_settled(name)] == ["bulk", "latency"]


def test_a_task_that_ran_twice_in_one_round_is_told_of() -> None:
    found = result(throughput=[5.0])
    assert found.is_well
    found.add("throughput", 1, told("throughput", 5.0, repeated=1))
    assert not found.is_well
    assert (found.checks["throughput"].expected, found.checks["throughput"].repeated) == (20, 1)


def test_every_system_has_its_broker_and_every_broker_its_server() -> None:
    assert set().union(*ON_BROKER.values()) == set(SYSTEMS)
    assert set(ON_BROKER) == set(SERVERS)


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("broker", "server", "bulk"),
    [
        ("redis", "without persistence", ["stem", "rq", "rq-simple"]),
        ("postgres", "fsync on, synchronous_commit on", ["stem", "procrastinate", "pgqueuer", "chancy"]),
    ],
)
def test_every_system_is_measured(broker: str, server: str, bulk: list[str], tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    words = ["--tasks", "400", "--rounds", "1", "--what", "throughput,enqueue,bulk,latency", "--json", str(file)]
    command = [sys.executable, "-m", "tests.perf", "--broker", broker, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    systems = {system["name"]: system for system in found["systems"]}
    assert server in found["server"]
    assert list(systems) == ON_BROKER[broker]
    assert all(system["figures"]["throughput"]["value"] > 0 for system in systems.values())
    assert [name for name, system in systems.items() if system["figures"]["bulk"]["value"]] == bulk
