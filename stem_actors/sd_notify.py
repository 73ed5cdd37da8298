"""Tells the init system how this process is: systemd's notification protocol, which others speak as well.

Owns one datagram socket, and what was said last. Where nobody asked to be told (`NOTIFY_SOCKET` is not set) nothing is done.
Datagrams never wait: one that is not taken is sent again when there is news of its kind next time.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

__all__ = ["InitSystem"]

_logger = logging.getLogger("stem.node")


class InitSystem:
    """Who started us and wants to hear of us. For one thread.

    `watchdog`  seconds after which it takes us for dead unless `alive` was said; None: it does not watch
    """

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        self._address = address
        self._socket = None if address is None else socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._interval = None if watchdog is None else watchdog / 2
        self._said_alive_at = float("-inf")
        self._status = ""
        self._knows_ready = False

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> InitSystem:
        """Read what it asks for, and take that out of `environ`: what we start must not speak for us."""
        names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        address, microseconds, pid = (environ.pop(name, "") for name in names)
        if not address:
            return cls(None)
        if address[0] not in "/@" or len(address) == 1:
            _logger.warning("NOTIFY_SOCKET is %r, which is no Unix socket: the init system is not told how we are", address)
            return cls(None)
        is_watched = microseconds.isascii() and microseconds.isdigit() and int(microseconds) and pid in ("", str(os.getpid()))
        return cls("\0" + address[1:] if address[0] == "@" else address, int(microseconds) / 1e6 if is_watched else None)

    @property
    def is_listening(self) -> bool:
        return self._socket is not None

    def ready(self) -> None:
        """We do what we were started for; said once."""
        if not self._knows_ready:
            self._knows_ready = self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for people; said when it is another than before."""
        line = " ".join(text.split())
        if line != self._status and self._send(f"STATUS={line}"):
            self._status = line

    def alive(self, now: float) -> None:
        """We are well, at `now` on a clock that never jumps; said every half of the time after which it would end us."""
        if self._interval is not None and now - self._said_alive_at >= self._interval and self._send("WATCHDOG=1"):
            self._said_alive_at = now

    def stopping(self, longest: float) -> None:
        """We leave, and ask for `longest` seconds where its own patience would end sooner."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(longest * 1e6)}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, state: str) -> bool:
        """Whether it was taken. By address, so that an init system that was replaced meanwhile hears us too."""
        if self._socket is None or self._address is None:
            return False
        try:
            self._socket.sendto(state.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError as error:
            _logger.debug("the init system was not told %s: %s", state.partition("=")[0], error)
            return False
        return True
