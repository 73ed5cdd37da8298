"""The node's admin HTTP server: `/livez`, `/readyz`, `/metrics`, `/status`. Answers from what the node knows; asks nobody."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from stem_actors.errors import OperatorError

__all__ = ["AdminServer", "Health", "Pages"]

_logger = logging.getLogger("stem.admin")
_TIMEOUT = 10.0
_LOOK_FOR_END = 60.0  # only for a kernel that wakes nobody when a listening socket is shut down


@dataclass(frozen=True, slots=True)
class Health:
    """The answer to a probe: reasons by part, such as a worker's id; a part without reasons is well."""

    reasons: Mapping[str, Sequence[str]]

    @property
    def is_good(self) -> bool:
        return not any(self.reasons.values())


@dataclass(frozen=True, slots=True)
class Pages:
    """Where the answers come from; each is called in a thread of the server."""

    livez: Callable[[], Health]
    readyz: Callable[[], Health]
    metrics: Callable[[str], tuple[bytes, str]]
    status: Callable[[], Any]


class AdminServer:
    """Serves from its own threads between `start` and `close`."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        """Bind; `OperatorError` when the address is taken or not ours."""
        handler = type("Handler", (_Handler,), {"pages": pages, "timeout": _TIMEOUT})
        try:
            self._server = (_Server6 if ":" in host else _Server)((host, port), handler)
        except OSError as error:
            raise OperatorError(
                f"the admin server cannot listen on {host}:{port}: {error.strerror or error}. "
                "Choose another address with --admin HOST:PORT (port 0 picks a free one), or --admin off."
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_LOOK_FOR_END,), name="admin", daemon=True)

    @property
    def address(self) -> str:
        """`host:port`, with the port that was picked."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news; anything else is our fault."""
        if not isinstance(sys.exception(), OSError):
            _logger.exception("a request of %s was not answered", client_address[0])


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    pages: Pages
    server_version = "stem"
    sys_version = ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match url.path:
            case "/livez":
                self._health(self.pages.livez(), "verbose" in url.query)
            case "/readyz":
                self._health(self.pages.readyz(), "verbose" in url.query)
            case "/metrics":
                body, content_type = self.pages.metrics(self.headers.get("Accept", ""))
                self._answer(200, body, content_type)
            case "/status":
                self._answer(200, json.dumps(self.pages.status()).encode(), "application/json")
            case _:
                self._answer(404, b"not found: /livez /readyz /metrics /status\n", "text/plain; charset=utf-8")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _health(self, health: Health, verbose: bool) -> None:
        code = 200 if health.is_good else 503
        if "application/json" in self.headers.get("Accept", ""):
            answer = {
                "status": "ok" if health.is_good else "error",
                "reasons": {part: list(r) for part, r in health.reasons.items()},
            }
            self._answer(code, json.dumps(answer).encode(), "application/json")
            return
        lines = [f"{part}: {reason}" for part, reasons in health.reasons.items() for reason in reasons]
        if verbose:
            lines += [f"{part}: ok" for part, reasons in health.reasons.items() if not reasons]
        text = "\n".join(["ok" if health.is_good else "not ok", *lines]) + "\n"
        self._answer(code, text.encode(), "text/plain; charset=utf-8")

    def _answer(self, code: int, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come each second; they are not worth a line."""
