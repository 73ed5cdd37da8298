"""The Postgres broker answers as the memory broker does, whatever is done to it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import initialize

from stem_actors.testing import ManualClock
from tests.contract.fabric import MemoryFabric, PostgresFabric
from tests.property import test_broker_twin as base


class PostgresTwin(base.BrokerTwin):
    """As the machine it is made from, with another broker beside the twin."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stem-twin-"))
        self.clock = ManualClock()
        fabrics = MemoryFabric(self.folder), PostgresFabric(self.folder)
        self.twin, self.real = (fabric.open(clock=self.clock) for fabric in fabrics)
        self.intakes = {}
        self.pairs = []
        self.published = []
        self.serial = 0


TestPostgresTwin = PostgresTwin.TestCase
TestPostgresTwin.settings = settings(max_examples=40, stateful_step_count=50)
