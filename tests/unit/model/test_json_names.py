from __future__ import annotations

import dataclasses
import re

import pytest

from stem_actors import ports
from stem_actors.errors import UsageError
from stem_actors.model.delivery import State
from stem_actors.model.envelope import Envelope
from stem_actors.model.json_names import JSON_NAMES, iso_time, json_name, parse_time, to_json
from stem_actors.model.record import TaskRecord


def test_every_name_in_the_table_is_snake_case_here_and_camel_case_there() -> None:
    for ours, theirs in JSON_NAMES.items():
        assert theirs == re.sub(r"_(\w)", lambda match: match[1].upper(), ours)
        assert ours != theirs


@pytest.mark.parametrize(
    "names",
    [Envelope._fields, State._fields, TaskRecord._fields, [each.name for each in dataclasses.fields(ports.Revocation)]],
)
def test_every_field_that_people_see_has_its_name_in_json(names: list[str]) -> None:
    assert [name for name in names if "_" in json_name(name)] == []


def test_names_are_turned_at_every_depth() -> None:
    assert to_json({"worker_id": "w", "extras": {"load_avg": [1]}, "queues": [{"task_id": 1}]}) == {
        "workerId": "w",
        "extras": {"loadAvg": [1]},
        "queues": [{"taskId": 1}],
    }


def test_times_are_iso_in_utc_with_milliseconds() -> None:
    assert iso_time(1735689600.0) == "2025-01-01T00:00:00.000Z"
    assert iso_time(1735689600.0016) == "2025-01-01T00:00:00.002Z"
    assert iso_time(None) is None


@pytest.mark.parametrize(
    "text", ["2025-01-01T00:00:00Z", "2025-01-01", "2025-01-01T01:00:00+01:00", " 2025-01-01T00:00:00.000z "]
)
def test_times_are_read_and_without_a_zone_they_are_utc(text: str) -> None:
    assert parse_time(text) == 1735689600.0


def test_what_is_no_time_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="tomorrow"):
        parse_time("tomorrow")
