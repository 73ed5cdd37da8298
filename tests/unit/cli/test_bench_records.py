from __future__ import annotations

from pathlib import Path

import pytest

from stem_actors.errors import UsageError
from stem_cli.bench.measurements import FULL, chosen, steps
from stem_cli.bench.records import RECORD, Check, Records, Run, check


def test_runs_of_all_processes_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "11.records").write_bytes(RECORD.pack(0, 5.0) + RECORD.pack(2, 7.0))
    (tmp_path / "12.records").write_bytes(RECORD.pack(1, 6.0) + b"half a rec")
    (tmp_path / "node.log").write_text("something else")
    records = Records(tmp_path)
    assert records.count() == 3
    assert records.read() == [Run(0, 5.0, 11), Run(1, 6.0, 12), Run(2, 7.0, 11)]
    assert records.of(range(1, 3)) == [Run(1, 6.0, 12), Run(2, 7.0, 11)]


@pytest.mark.parametrize(
    ("numbers", "times", "found"),
    [
        ([0, 1, 2], 1, Check(3, 0, 0)),
        ([0, 2], 1, Check(3, 1, 0)),
        ([0, 1, 2, 2, 2], 1, Check(3, 0, 2)),
        ([1, 1], 1, Check(3, 2, 1)),
        ([0, 0, 1, 1, 2], 2, Check(3, 1, 0)),
    ],
)
def test_what_is_missing_and_what_ran_too_often_is_counted(numbers: list[int], times: int, found: Check) -> None:
    checked = check([Run(number, 0.0, 1) for number in numbers], range(3), times)
    assert checked == found
    assert checked.is_well is (found.missing == found.repeated == 0)


def test_measurements_are_chosen_by_name_and_stand_in_one_order() -> None:
    assert chosen("latency, bulk") == ["bulk", "latency"]
    assert len(chosen(None)) == 8
    assert steps(["bulk", "latency"], FULL) == 4
    with pytest.raises(UsageError, match="throughput"):
        chosen("speed")
