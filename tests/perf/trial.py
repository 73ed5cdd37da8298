"""One measurement of one system, in a process of its own where the system is installed: `python -m tests.perf.trial`.

Its arguments are the system, the measurement and the sizes as JSON; it prints what it found as JSON. The comparison runs it.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from importlib.metadata import version

from stem_actors.errors import OperatorError
from tests.perf.bed import Bed
from tests.perf.measurements import MEASUREMENTS, Sizes
from tests.perf.systems import KeepsResults, load

__all__: list[str] = []


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what we started ends with us
    name, measurement, sizes = sys.argv[1:]
    system = load(name)
    try:
        finding = MEASUREMENTS[measurement](Bed(system), Sizes(**json.loads(sizes)))
    except OperatorError as error:  # all else is better told with a traceback
        sys.exit(str(error))
    versions = {distribution: version(distribution) for distribution in system.distributions}
    about = {
        "title": system.title,
        "versions": versions,
        "share": system.share,
        "keeps_results": isinstance(system, KeepsResults),
    }
    print(json.dumps({**about, **asdict(finding)}))


if __name__ == "__main__":
    main()
