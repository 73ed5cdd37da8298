"""The audit log: one line for each command that removes tasks or runs them again, saying who did it, to what, how often.

It goes to stderr in the format of all logs (`STEM_LOG_FORMAT`), whatever the log level.
"""

from __future__ import annotations

import logging
import os
import pwd

from stem_actors import logs
from stem_actors.config import Settings

__all__ = ["note"]

_logger = logging.getLogger("stem.audit")


def note(settings: Settings, action: str, queue: str, count: int, **facts: object) -> None:
    """Write the line. `action` as in "dlq replay"; `facts` without a value are left out."""
    if not logging.getLogger().handlers:
        logs.set_up_logging(settings.log_level, settings.log_format)
    _logger.setLevel(logging.INFO)
    known = {key: value for key, value in facts.items() if value not in (None, [], 0.0, False)}
    data = {"who": _who(), "action": action, "namespace": settings.namespace, "queue": queue, "count": count, **known}
    _logger.info("%s by an operator", action, extra=data)


def _who() -> str:
    """Login, host, and who is behind `sudo`. By the process's user id, which a variable cannot forge."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user often has no entry
        name = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER")
    return f"{name}@{os.uname().nodename}" + (f" (sudo by {behind})" if behind else "")
