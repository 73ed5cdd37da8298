"""One process: an HTTP API to enqueue with, and the worker that runs what was enqueued.

    POST /enqueue {"name": "Ada"}   → {"taskId": …}; 400 without a name
    GET  /status/<taskId>           → {"id", "state", "attempt", "result" or "error"}

The worker lives as long as the service: it is there before the first request is taken, and on Ctrl-C or SIGTERM no request is
taken any more while tasks that run come to their end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from json import JSONDecodeError
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tasks import app, send_greeting

from stem_actors import BrokerUnavailable, TaskState, UsageError

CONCURRENCY = 2


async def enqueue(request: Request) -> JSONResponse:
    try:
        body = await request.json()
    except (JSONDecodeError, UnicodeDecodeError):
        raise HTTPException(400, "the body is not JSON") from None
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise HTTPException(400, 'a name is needed, such as {"name": "Ada"}')
    handle = await send_greeting.aenqueue(name.strip())
    return JSONResponse({"taskId": handle.id})


async def status(request: Request) -> JSONResponse:
    """A task that has not started has no record yet; neither has an id that never was. Both are `queued`."""
    try:
        handle = app.handle(request.path_params["id"])
    except UsageError as error:
        raise HTTPException(400, str(error)) from None
    record = await asyncio.to_thread(handle.status)
    answer: dict[str, Any] = {"id": record.id, "state": record.state.value, "attempt": record.attempt}
    if record.state is TaskState.SUCCEEDED:
        answer["result"] = await handle.aget(timeout=1)
    if record.error is not None:
        answer["error"] = {"type": record.error.type, "message": record.error.message}
    return JSONResponse(answer)


async def refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def unavailable(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 503)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    with app, app.worker(concurrency=CONCURRENCY):
        print(f"monolith: {CONCURRENCY} executors are ready", flush=True)
        yield
        print("monolith: waiting for running tasks", flush=True)
    print("monolith: drained", flush=True)


api = Starlette(
    routes=[Route("/enqueue", enqueue, methods=["POST"]), Route("/status/{id}", status)],
    exception_handlers={HTTPException: refused, BrokerUnavailable: unavailable},
    lifespan=lifespan,
)


if __name__ == "__main__":
    uvicorn.run(api, host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
