"""The time that a leaving node gets: the how-to reckons with the settings' defaults and with what the templates say."""

from __future__ import annotations

import re
from pathlib import Path

from stem_actors.config import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/run-a-node.md").read_text()
UNIT = (ROOT / "cli/templates/systemd/stem-worker@.service").read_text()
MANIFEST = (ROOT / "cli/templates/kubernetes/stem-node.yaml").read_text()


def figure(pattern: str, text: str) -> int:
    """The one number that a text has there."""
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return int(found)


def test_the_how_to_adds_up_the_defaults() -> None:
    drain = figure(r"^    STEM_DRAIN_TIMEOUT +(\d+) s", PAGE)
    grace = figure(r"^    STEM_SOFT_GRACE_PERIOD +(\d+) s", PAGE)
    margin = figure(r"^    margin +(\d+) s", PAGE)
    settings = Settings()
    assert (drain, grace) == (settings.drain_timeout, settings.soft_grace_period)
    assert figure(r"^    until SIGKILL +(\d+) s", PAGE) == drain + grace + margin
    assert figure(r"with `STEM_DRAIN_TIMEOUT=10m` it is (\d+)", PAGE) == 600 + grace + margin


def test_the_how_to_and_the_templates_give_the_same_time() -> None:
    needed = figure(r"^    until SIGKILL +(\d+) s", PAGE)
    kubernetes = figure(r"^ +terminationGracePeriodSeconds: (\d+)", MANIFEST)
    systemd = figure(r"^TimeoutStopSec=(\d+)", UNIT)
    assert figure(r"^\| Kubernetes \|.*\| (\d+) \|$", PAGE) == kubernetes == needed
    assert figure(r"^\| systemd \|.*\| (\d+) \|$", PAGE) == systemd == needed
    assert figure(r"^\| Docker, Compose \|.*`(\d+)s` \|$", PAGE) == needed


def test_a_node_that_is_on_its_way_out_fits_in_whatever_its_tasks_do() -> None:
    """What a worker may take: it drains, interrupts, kills, and writes down what came of it within two seconds."""
    settings = Settings()
    longest = settings.drain_timeout + settings.soft_grace_period + 2
    for given in (figure(r"^ +terminationGracePeriodSeconds: (\d+)", MANIFEST), figure(r"^TimeoutStopSec=(\d+)", UNIT)):
        assert longest + 10 < given
