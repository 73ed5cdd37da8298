"""The enqueue API: takes requests, stores tasks in Redis, runs none.

    POST /enqueue {"name": "Ada"}   → {"taskId": …}; 400 without a name. Also "task" (greeting.send), "delayMs", "fail"
    GET  /status/<taskId>           → {"id", "state", "attempt", "meta", "result" or "error"}
    GET  /healthz                   → 200 and the queues; 503 while Redis is away

ENQUEUER_TLS_CERT and ENQUEUER_TLS_KEY make it HTTPS, ENQUEUER_TLS_CLIENT_CA asks each client for a certificate.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from json import JSONDecodeError
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tasks import TASKS, app

from stem_actors import BrokerUnavailable, StemError, TaskState, UsageError

USAGE = 64
LONGEST_DELAY_MS = 60_000


# ---------------------------------------------------------------- requests


async def enqueue(request: Request) -> JSONResponse:
    try:
        body = await request.json()
    except (JSONDecodeError, UnicodeDecodeError):
        raise HTTPException(400, "the body is not JSON") from None
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise HTTPException(400, 'a name is needed, such as {"name": "Ada"}')
    task = TASKS.get(str(body.get("task", "greeting.send")))
    if task is None:
        raise HTTPException(400, f"there is no such task; there are {', '.join(TASKS)}")
    delay_ms, fail = body.get("delayMs", 100), body.get("fail", False)
    if type(delay_ms) is not int or not 0 <= delay_ms <= LONGEST_DELAY_MS:
        raise HTTPException(400, f"delayMs is a whole number from 0 to {LONGEST_DELAY_MS}")
    if type(fail) is not bool:
        raise HTTPException(400, "fail is true or false")
    handle = await task.aenqueue(name.strip(), delay_ms, fail)
    return JSONResponse({"taskId": handle.id})


async def status(request: Request) -> JSONResponse:
    """A task that has not started has no record yet; neither has an id that never was. Both are `queued`."""
    try:
        handle = app.handle(request.path_params["id"])
    except UsageError as error:
        raise HTTPException(400, str(error)) from None
    record = await asyncio.to_thread(handle.status)
    answer: dict[str, Any] = {
        "id": record.id,
        "state": record.state.value,
        "attempt": record.attempt,
        "meta": {name: record.meta[name] for name in ("task", "queue", "worker") if name in record.meta},
    }
    if record.state is TaskState.SUCCEEDED:
        answer["result"] = await handle.aget(timeout=1)
    if record.error is not None:
        answer["error"] = {"type": record.error.type, "message": record.error.message}
    return JSONResponse(answer)


async def healthz(_: Request) -> JSONResponse:
    depths = await asyncio.to_thread(app.stores.broker.depths)
    return JSONResponse({"status": "ok", "queues": {each.queue: each.pending for each in depths}})


async def refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def unavailable(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 503)


# ---------------------------------------------------------------- tasks of its own


async def autofill() -> None:
    """Enqueue a few mixed tasks now and then; every so many fails on purpose. 0: none does."""
    pause = _number("ENQUEUER_AUTOFILL_INTERVAL_MS", 2500) / 1000
    batch, failure_every = _number("ENQUEUER_AUTOFILL_BATCH_SIZE", 2), _number("ENQUEUER_AUTOFILL_FAILURE_EVERY", 8)
    tasks = itertools.cycle(TASKS.values())
    for count in itertools.count(1):
        fails = failure_every > 0 and count % failure_every == 0
        with suppress(StemError):  # Redis is away: the next ones will get through
            await next(tasks).aenqueue(f"customer-{count}", fail=fails)
        if count % max(1, batch) == 0:
            await asyncio.sleep(pause)


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    wants_more = os.environ.get("ENQUEUER_AUTOFILL_ENABLED", "true").lower() in ("true", "1", "yes")
    filling = asyncio.create_task(autofill()) if wants_more else None
    with app:
        yield
        if filling is not None:
            filling.cancel()


api = Starlette(
    routes=[
        Route("/enqueue", enqueue, methods=["POST"]),
        Route("/status/{id}", status),
        Route("/healthz", healthz),
    ],
    exception_handlers={HTTPException: refused, BrokerUnavailable: unavailable},
    lifespan=lifespan,
)


# ---------------------------------------------------------------- the server


def tls_options() -> dict[str, Any]:
    """What uvicorn is told about TLS; ValueError when the three variables do not fit together."""
    cert, key, client_ca = (os.environ.get(f"ENQUEUER_TLS_{name}") or None for name in ("CERT", "KEY", "CLIENT_CA"))
    if (cert is None) != (key is None):
        raise ValueError("ENQUEUER_TLS_CERT and ENQUEUER_TLS_KEY belong together: set both, or neither.")
    if cert is None:
        if client_ca is not None:
            raise ValueError(
                "ENQUEUER_TLS_CLIENT_CA asks clients for certificates, which needs HTTPS: set ENQUEUER_TLS_CERT too."
            )
        return {}
    options: dict[str, Any] = {"ssl_certfile": cert, "ssl_keyfile": key}
    if client_ca is not None:
        options |= {"ssl_ca_certs": client_ca, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options


def main() -> int:
    try:
        tls = tls_options()
        uvicorn.run(api, host=os.environ.get("HOST") or "127.0.0.1", port=_number("PORT", 8081), **tls)
    except (ValueError, FileNotFoundError, ssl.SSLError) as error:
        print(f"enqueuer: {error}", file=sys.stderr)
        return USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
