"""How autoscaling is set: what is accepted, and what an error says."""

from __future__ import annotations

import pytest

from stem_actors.config import Settings, resolve
from stem_actors.errors import ConfigError


def test_a_range_and_its_times_travel_to_a_worker_process_and_to_its_environment() -> None:
    given = {
        "STEM_AUTOSCALE": "2:8",
        "STEM_AUTOSCALE_UP_STEP": "2",
        "STEM_AUTOSCALE_BACKLOG_PER_EXECUTOR": "0.5",
        "STEM_AUTOSCALE_TICK": "100ms",
        "STEM_AUTOSCALE_IDLE_PERIOD": "1m",
    }
    settings = resolve({}, given).settings
    assert (settings.autoscale, settings.autoscale_up_step, settings.autoscale_backlog_per_executor) == ((2, 8), 2, 0.5)
    assert (settings.autoscale_tick, settings.autoscale_idle_period) == (0.1, 60.0)
    assert Settings.from_wire(settings.to_wire()) == settings
    assert given.items() <= settings.as_environ().items()
    assert resolve({"autoscale": "1:1"}, given).settings.autoscale == (1, 1)


def test_it_is_off_unless_it_is_asked_for() -> None:
    assert resolve({}, {}).settings.autoscale is None
    assert resolve({"autoscale": "none"}, {"STEM_AUTOSCALE": "1:2"}).settings.autoscale is None


@pytest.mark.parametrize("text", ["4", "0:4", "4:2", "1:", ":4", "1:4:8", "-1:4", "1:²", "many"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--autoscale is .* not MIN:MAX"):
        resolve({"autoscale": text}, {})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("STEM_AUTOSCALE_TICK", "99ms"),
        ("STEM_AUTOSCALE_IDLE_PERIOD", "0"),
        ("STEM_AUTOSCALE_UP_COOLDOWN", "0s"),
        ("STEM_AUTOSCALE_DOWN_STEP", "0"),
        ("STEM_AUTOSCALE_BACKLOG_PER_EXECUTOR", "0.0"),
        ("STEM_AUTOSCALE_BACKLOG_PER_EXECUTOR", "-1"),
        ("STEM_AUTOSCALE_BACKLOG_PER_EXECUTOR", "nan"),
    ],
)
def test_times_steps_and_shares_are_above_zero(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        resolve({}, {variable: text})
