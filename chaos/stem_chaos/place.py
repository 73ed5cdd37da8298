"""Where a run's tasks wait: a broker of its own, or room of its own on a broker that the operator names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from stem_actors import Stem
from stem_actors.adapters import SCHEMES
from stem_actors.config import URL, read_value, resolve
from stem_actors.errors import ConfigError, UsageError
from stem_chaos.route import route_of
from stem_cli.namespaces import forget_namespace
from stem_cli.store_facts import file_of

__all__ = ["PRIVATE", "Place", "find_place"]

PRIVATE = ("sqlite", "redis", "postgres")
_KEPT = ("STEM_TLS_", "STEM_ACCEPT_DATA_LOSS")
"""Variables of the operator that hold for a run as well: they say how a server may be used. All others are the run's own."""


@dataclass(frozen=True, slots=True)
class Place:
    """`broker` as a cluster takes it: one of `PRIVATE`, or a URL. `settings` go with it.

    `technology`  one of `PRIVATE`
    `named`       the URL that the operator gave; None for a private one
    """

    broker: str
    technology: str
    named: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_private(self) -> bool:
        return self.named is None

    @property
    def has_links(self) -> bool:
        """Whether nodes and clients reach it by TCP that a proxy can understand."""
        return self.technology != "sqlite" if self.is_private else route_of(self.broker) is not None

    def check(self) -> None:
        """Ask the operator's broker for the time; nodes that cannot reach it would be waited for in vain.

        Raises:
            BrokerUnavailable, OperatorError: it cannot be used.
        """
        if self.named is not None:
            with Stem(settings=resolve({}, {"STEM_BROKER_URL": self.broker, **self.settings}).settings) as app:
                app.stores.broker.now()

    def clean_up(self) -> None:
        """Remove what the run left on the operator's broker; a private one is removed or kept with the run's directory.

        Raises:
            BrokerUnavailable: it does not answer.
        """
        if self.named is None:
            return
        path = file_of(self.broker)
        if path is None:
            forget_namespace(resolve({}, {"STEM_BROKER_URL": self.broker, **self.settings}).settings)
            return
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).unlink()


def find_place(broker: str) -> Place:
    """Read `--broker`.

    Raises:
        UsageError: it names nothing that a run can use.
    """
    if broker in PRIVATE:
        return Place(broker, broker)
    read_value(URL, broker, "--broker")
    own = f"stem-chaos-{secrets.token_hex(4)}"
    path = file_of(broker)
    if path is not None:
        folder = path.resolve().parent
        if not folder.is_dir():
            raise UsageError(f"--broker is {broker}, and there is no directory {folder}")
        return Place(f"sqlite:///{folder / own}.db", "sqlite", broker)
    if broker.lower().startswith("memory"):
        raise ConfigError("a memory broker lives inside one program, so no node could work on it; name another with --broker")
    kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
    return Place(broker, SCHEMES[urlsplit(broker).scheme.lower()], broker, {**kept, "STEM_NAMESPACE": own})
