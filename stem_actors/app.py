"""`Stem`, what a user builds: settings, task registry and client put together. `Task`, `Handle`: what one holds in one's hands.

Nothing is opened before it is used, so a module that builds an application and defines tasks can be imported anywhere, executors
included, and costs next to nothing there.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, cast, overload

from stem_actors.client import Call, CallOptions, Client
from stem_actors.clock import Clock, SystemClock
from stem_actors.codecs.msgpack import decode_payload
from stem_actors.codecs.payload_types import PayloadTypes
from stem_actors.config import BACKEND, URL, WORD, Settings, read_value, resolve
from stem_actors.errors import ResultTimeout, TaskCancelled, TaskDefinitionError, TaskFailed, UsageError
from stem_actors.executors.context import is_executor, worker_link
from stem_actors.executors.errands import stores_through
from stem_actors.middleware.chain import AroundAsync, AroundSync, Middleware
from stem_actors.model.envelope import clamp_priority
from stem_actors.model.ids import check_task_id
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.moments import timestamp
from stem_actors.model.record import TaskRecord
from stem_actors.model.retry import RetryPolicy
from stem_actors.model.task import FailureMode, TaskDefinition, TaskOptions, TaskRegistry
from stem_actors.model.uniqueness import UniquePolicy, UniqueScope
from stem_actors.ports import Stores

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["AsyncTask", "Call", "Handle", "Stem", "Task"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Handle(Generic[R_co]):
    """A task that was enqueued. `R_co` is what it returns; a handle made from an id alone promises nothing."""

    __slots__ = ("_client", "id")

    def __init__(self, client: Client, id: str) -> None:
        self._client = client
        self.id = id

    def __repr__(self) -> str:
        return f"<Handle {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def status(self) -> TaskRecord:
        """The task's record as last written; `queued` as long as there is none.

        Raises:
            ResultsDisabled: results are switched off.
        """
        return self._client.record(self.id)

    def get(self, timeout: float | None = None) -> R_co:
        """Wait until the task has ended and return what it returned. None waits for ever.

        Raises:
            TaskFailed, TaskCancelled: it did not succeed.
            ResultTimeout: it has not ended within `timeout` seconds, and may yet do so.
            ResultsDisabled: results are switched off.
        """
        return self._value(self._client.wait(self.id, timeout), timeout)

    async def aget(self, timeout: float | None = None) -> R_co:
        """Like `get`, without blocking the event loop."""
        return self._value(await _wait_elsewhere(self._client, self.id, timeout), timeout)

    def revoke(self, terminate: bool = False, reason: str | None = None) -> None:
        """Ask for the task to be cancelled: it will not start, nor be retried; with `terminate` a running one is interrupted."""
        self._client.revoke((self.id,), terminate, reason)

    def _value(self, record: TaskRecord | None, timeout: float | None) -> R_co:
        if record is None:
            raise ResultTimeout(self.id, f"task {self.id} has not ended within {timeout:g} s; it may still do so")
        name = record.meta.get("task", "task")
        if record.state is TaskState.SUCCEEDED:
            return cast(R_co, None if record.payload is None else decode_payload(record.payload, self._client.payload_types))
        error_type, message = (record.error.type, record.error.message) if record.error else ("unknown", "no error was recorded")
        if record.state is TaskState.CANCELLED:
            raise TaskCancelled(self.id, f"{name} {self.id} was cancelled: {message}")
        stack = record.error.stack if record.error else None
        raise TaskFailed(self.id, f"{name} {self.id} failed: {error_type}: {message}", error_type, stack)


class Task(Generic[P, R]):
    """A function that is a task: call it and it runs here, enqueue it and a worker runs it. Immutable.

    `options(...)` gives another `Task` of the same function, whose calls travel with those options.
    """

    __name__: str  # the function's, like its docstring

    def __init__(self, client: Client, definition: TaskDefinition, options: CallOptions) -> None:
        functools.update_wrapper(self, definition.function)
        self._client = client
        self._definition = definition
        self._options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, as if it were no task."""
        return cast(R, self._definition.function(*args, **kwargs))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def name(self) -> str:
        return self._definition.name

    @property
    def definition(self) -> TaskDefinition:
        return self._definition

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Have a worker run the function with these arguments. Durable when it returns.

        `connection=`, unless the function has such a parameter, is no argument but an option: see `options`.

        Raises:
            PayloadError: an argument cannot travel.
            BrokerUnavailable: no answer within 10 s; the task may be enqueued or not.
        """
        client, options = self._client, self._options
        if "connection" in kwargs and not self._takes_connection:
            options = replace(options, connection=kwargs.pop("connection"))
        return Handle(client, client.enqueue(Call(self._definition.name, args, kwargs, options)))

    @property
    def _takes_connection(self) -> bool:
        parameters = inspect.signature(self._definition.function).parameters.values()
        return any(each.name == "connection" or each.kind is each.VAR_KEYWORD for each in parameters)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Like `enqueue`, without blocking the event loop."""
        import asyncio  # slow to import, and loaded already where this runs

        return await asyncio.to_thread(self.enqueue, *args, **kwargs)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """A call to be sent later, with others, by `Stem.enqueue_many`."""
        return Call(self._definition.name, args, kwargs, self._options)

    def options(
        self,
        *,
        countdown: float | None = None,
        eta: dt.datetime | float | None = None,
        queue: str | None = None,
        priority: int | None = None,
        expires: dt.datetime | dt.timedelta | float | None = None,
        task_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        max_retries: int | None = None,
        soft_time_limit: float | None = None,
        hard_time_limit: float | None = None,
        ignore_result: bool | None = None,
        meta: Mapping[str, Any] | None = None,
        unique_key: str | None = None,
        connection: Any = None,
    ) -> Self:
        """This task with other options for its calls; what is not named stays as it is.

        `countdown`  seconds until it may start; `eta` (an aware datetime, or seconds since the epoch) wins over it
        `expires`    not started later than this: seconds or a timedelta from the enqueue on, or an aware datetime
        `task_id`    an id of your own, for one call: a second one with it is refused (`DuplicateTaskId`)
        `unique_key` what makes calls of a unique task the same, in place of their arguments
        `connection` yours to the Postgres that is the broker: the task is stored in the transaction that is open there
        """
        options = _with_options(
            self._options,
            countdown=countdown,
            eta=eta,
            queue=queue,
            priority=priority,
            expires=expires,
            task_id=task_id,
            headers=headers,
            max_retries=max_retries,
            soft_time_limit=soft_time_limit,
            hard_time_limit=hard_time_limit,
            ignore_result=ignore_result,
            meta=meta,
            unique_key=unique_key,
            connection=connection,
        )
        return type(self)(self._client, self._definition, options)


class AsyncTask(Task[P, R]):
    """A coroutine function that is a task. `R` is what it returns when awaited."""

    # A caller of a `Task` gets the result, of an `AsyncTask` a coroutine, as from the functions themselves. Two unrelated classes
    # would be stricter, and nobody could say `Task` for both.
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]  # see above
        """Run the coroutine function here, as if it were no task."""
        return cast(Coroutine[Any, Any, R], self._definition.function(*args, **kwargs))


class Stem:
    """An application: its settings, its tasks, and the way to its stores.

    `Stem()` takes its settings from `STEM_*`; `broker` and `backend` are URLs that go before those. Used as a context manager it
    closes its stores at the end. Any thread may use it, and so may a forked child.

        app = Stem()

        @app.task
        def add(a: int, b: int) -> int:
            return a + b

        add.enqueue(1, 2).get(timeout=10)
    """

    def __init__(
        self,
        broker: str | None = None,
        backend: str | None = None,
        *,
        namespace: str | None = None,
        settings: Settings | None = None,
        middleware: Sequence[Middleware] = (),
        clock: Clock | None = None,
    ) -> None:
        is_told = settings is not None
        settings = settings or resolve({}, os.environ).settings
        given = (("broker_url", URL, broker, "broker"), ("result_backend_url", BACKEND, backend, "backend"))
        named = (*given, ("namespace", WORD, namespace, "namespace"))
        values: dict[str, Any] = {
            field: read_value(grammar, value, source) for field, grammar, value, source in named if value is not None
        }
        self.settings = replace(settings, **values)
        self.explicit_broker_url: str | None = self.settings.broker_url if is_told or broker is not None else None
        self.registry = TaskRegistry()
        self._clock = clock or SystemClock()
        self.payload_types = PayloadTypes()
        self.client = Client(self._open_stores, self.settings, self._clock, payload_types=self.payload_types)
        self.middlewares: list[Middleware] = []
        for each in middleware:
            self._add_middleware(each)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the stores. Idempotent; the next use opens them again."""
        self.client.close()

    @property
    def stores(self) -> Stores:
        """The stores by role, opened now if they are not."""
        return self.client.stores

    # ------------------------------------------------------------ tasks

    # A coroutine function fits the second overload as well; the first that fits is taken.
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        max_retries: int | None = None,
        soft_time_limit: float | None = None,
        hard_time_limit: float | None = None,
        priority: int = 0,
        visibility_timeout: float | None = None,
        exclusive: bool = False,
        acks_late: bool = True,
        ignore_result: bool = False,
        retry_policy: RetryPolicy | None = None,
        rate_limit: str | None = None,
        rate_limit_failure_mode: FailureMode = "fail_open",
        group_rate_limit: str | None = None,
        group_rate_key: str | None = None,
        group_rate_key_header: str = "tenant",
        group_rate_limiter_failure_mode: FailureMode = "fail_open",
        concurrency_limit: int | None = None,
        concurrency_key: str | None = None,
        concurrency_key_header: str | None = None,
        unique: bool = False,
        unique_for: float | None = None,
        unique_headers: Sequence[str] = (),
        unique_policy: UniquePolicy = "reject",
        unique_scope: UniqueScope | None = None,
        description: str | None = None,
        tags: Sequence[str] = (),
        idempotent: bool = False,
    ) -> _TaskDecorator: ...
    def task(self, function: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Any) -> Any:
        """Make a function or coroutine function a task: `@app.task`, or `@app.task(queue="mail", max_retries=5)`.

        The name is `module.function` unless given, for a script `script.function`. The options are those of `TaskOptions`;
        durations in seconds.

        Raises:
            TaskDefinitionError: the name is taken, or the options contradict each other.
        """
        if function is None:
            return functools.partial(self._define, name, options)
        return self._define(name, options, function)

    def _define(self, name: str | None, options: Mapping[str, Any], function: Callable[..., Any]) -> Task[..., Any]:
        described = {"description": _first_line(function), **{key: value for key, value in options.items() if value is not None}}
        if described.get("queue") is not None:
            read_value(WORD, described["queue"], "queue")
        try:
            task_options = TaskOptions(**described)
        except TaskDefinitionError as error:
            raise TaskDefinitionError(f"task {name or _default_name(function)!r}: {error}") from error
        definition = self.registry.add(name or _default_name(function), function, task_options)
        kind = AsyncTask if definition.is_async else Task
        return kind(self.client, definition, self._call_options(task_options))

    def _call_options(self, task: TaskOptions) -> CallOptions:
        """What calls travel with that name no options of their own."""
        policy, settings = task.retry_policy, self.settings
        chosen = (policy.max_retries if policy else None, task.max_retries, settings.default_max_retries)
        return CallOptions(
            queue=task.queue or settings.default_queue,
            priority=clamp_priority(task.priority),
            max_retries=next(number for number in chosen if number is not None),
            visibility_timeout=task.visibility_timeout,
            headers={},
            meta={},
            unique=task.uniqueness,
        )

    def payload_type(self, code: int, cls: type[R], encode: Callable[[R], bytes], decode: Callable[[bytes], R]) -> None:
        """Let values of class `cls` be arguments and results: `app.payload_type(16, Money, Money.to_bytes, Money.from_bytes)`.

        `code`, 16 to 127, stands for the class on the wire, in every program that shares tasks with this one; never use it for
        another. Subclasses are classes of their own. Do it in the module that defines the application, as with tasks. A task that
        gets a code which its executor does not know is set aside as `undecodable-args`.

        Raises:
            UsageError: the code is out of range or taken, or the class travels anyway.
        """
        self.payload_types.add(code, cls, encode, decode)

    # ------------------------------------------------------------ middleware

    def middleware(
        self, enqueue: AroundSync | None = None, execute: AroundSync | None = None, aexecute: AroundAsync | None = None
    ) -> Middleware:
        """Put functions around tasks, inside of those that are there: `app.middleware(execute=timed, aexecute=atimed)`.

        Each is `(run, call_next) -> result` and calls `call_next(run)` once. `enqueue` sees a `Call` in the producer and returns
        the id; `execute` and, for `async def` tasks, `aexecute` see the `TaskContext` in the executor and return the result. Do
        it in the module that defines the application: an executor takes what is there once that is imported.

        Raises:
            UsageError: a coroutine function where a plain one belongs, or the other way round.
        """
        return self._add_middleware(Middleware(enqueue, execute, aexecute))

    def _add_middleware(self, middleware: Middleware) -> Middleware:
        for part, function in (("enqueue", middleware.enqueue), ("execute", middleware.execute)):
            if inspect.iscoroutinefunction(function):
                raise UsageError(
                    f"middleware {part}={function.__name__} is a coroutine function; those go around tasks as `aexecute`"
                )
        if middleware.aexecute is not None and not inspect.iscoroutinefunction(middleware.aexecute):
            raise UsageError("middleware `aexecute` must be a coroutine function (`async def`); plain ones go in as `execute`")
        self.middlewares.append(middleware)
        if middleware.enqueue is not None:
            self.client.add_middleware(middleware.enqueue)
        return middleware

    # ------------------------------------------------------------ enqueue

    def enqueue_many(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """Enqueue calls made by `Task.call`, up to 1,000 in each step; handles come in the order of the calls.

        Raises:
            PayloadError: an argument cannot travel; nothing was enqueued.
            BulkEnqueueError: it failed halfway, and the error says which ids are in, out or unknown.
        """
        client = self.client
        return [Handle(client, task_id) for task_id in client.enqueue_many(calls)]

    def enqueue_by_name(
        self, name: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Handle[Any]:
        """Enqueue a task by name, one that this program may not know. `options` as for `Task.options`.

        A task that is registered here lends its own options; nothing checks the arguments.
        """
        if not name:
            raise UsageError("a task needs a name")
        known = self.registry.find(name)
        call_options = _with_options(self._call_options(known.options if known else TaskOptions()), **options)
        return Handle(self.client, self.client.enqueue(Call(name, args, kwargs or {}, call_options)))

    def enqueue_inheriting(
        self,
        task: Task[..., Any] | str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        headers: Mapping[str, str],
        meta: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Handle[Any]:
        """Enqueue a task with headers and meta that its own go before; for `TaskContext.enqueue`."""
        if isinstance(task, Task):
            client, name, base = task._client, task.name, task._options
        else:
            known = self.registry.find(task)
            client, name, base = self.client, task, self._call_options(known.options if known else TaskOptions())
        base = replace(base, headers={**headers, **base.headers}, meta={**meta, **base.meta})
        return Handle(client, client.enqueue(Call(name, args, kwargs, _with_options(base, **options))))

    def handle(self, task_id: str) -> Handle[Any]:
        """A handle on a task that was enqueued elsewhere or earlier; it is not looked up."""
        return Handle(self.client, check_task_id(task_id))

    # ------------------------------------------------------------ workers, stores

    def worker(
        self, concurrency: int | None = None, queues: Sequence[str] | None = None, pool: str | None = None
    ) -> AbstractContextManager[Any]:
        """A worker inside this program, for as long as the `with` block lasts: `with app.worker(concurrency=2): …`

        Tasks run in processes of their own (`pool` "forkserver" or "spawn"), or with "inline" in threads of this program: for
        tests and notebooks, since the application need not be importable then. Inline there are no hard time limits, a soft
        limit or a revocation is raised only between two byte codes, and a task that ends its process ends the program.
        """
        from stem_actors.embedded import embedded  # here: a producer never needs a worker's modules

        return cast(AbstractContextManager[Any], embedded(self, concurrency=concurrency, queues=queues, pool=pool))

    def _open_stores(self) -> Stores:
        settings = self.settings
        if settings.broker_url.startswith("memory") and is_executor():
            return stores_through(worker_link, has_results=not settings.results_are_off)  # one opened here would be empty
        from stem_actors.adapters import open_configured  # here: an executor that imports the user's module loads no adapter

        return open_configured(settings, self._clock)


class _TaskDecorator:
    """What `@app.task(...)` with options returns, for type checkers: a generic function cannot be written as a return type."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any: ...


def _with_options(
    options: CallOptions,
    *,
    countdown: float | None = None,
    eta: dt.datetime | float | None = None,
    queue: str | None = None,
    priority: int | None = None,
    expires: dt.datetime | dt.timedelta | float | None = None,
    task_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    max_retries: int | None = None,
    soft_time_limit: float | None = None,
    hard_time_limit: float | None = None,
    ignore_result: bool | None = None,
    meta: Mapping[str, Any] | None = None,
    unique_key: str | None = None,
    connection: Any = None,
) -> CallOptions:
    """Call options with some of them replaced; headers and meta are added to those there are."""
    if soft_time_limit is not None or hard_time_limit is not None:
        TaskOptions(soft_time_limit=soft_time_limit, hard_time_limit=hard_time_limit)  # raises when they contradict each other
    if max_retries is not None and max_retries < 0:
        raise UsageError("max_retries is a number from 0")
    reserved = {
        "stem.softTimeLimitMs": None if soft_time_limit is None else round(soft_time_limit * 1000),
        "stem.timeLimitMs": None if hard_time_limit is None else round(hard_time_limit * 1000),
        "stem.ignoreResult": ignore_result,
        "uniqueKey": unique_key,
    }
    changes: dict[str, Any] = {
        "countdown": countdown,
        "eta": None if eta is None else timestamp(eta),
        "queue": None if queue is None else read_value(WORD, queue, "queue"),
        "priority": None if priority is None else clamp_priority(priority),
        "task_id": None if task_id is None else check_task_id(task_id),
        "max_retries": max_retries,
        "connection": connection,
        "headers": {**options.headers, **headers} if headers else None,
        "meta": {**options.meta, **(meta or {}), **{key: value for key, value in reserved.items() if value is not None}},
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    if isinstance(expires, dt.datetime):
        changes |= {"expires_at": timestamp(expires), "expires_in": None}
    elif expires is not None:
        seconds = expires.total_seconds() if isinstance(expires, dt.timedelta) else float(expires)
        changes |= {"expires_at": None, "expires_in": seconds}
    return replace(options, **changes)


def _default_name(function: Callable[..., Any]) -> str:
    """`module.function`. A script has the same name whether it is run (`__main__`) or imported by an executor."""
    module = function.__module__
    if module in ("__main__", "__mp_main__"):
        scope = getattr(function, "__globals__", {})
        spec, file = scope.get("__spec__"), scope.get("__file__")
        module = spec.name.removesuffix(".__main__") if spec else Path(file).stem if file else "main"
    return f"{module}.{function.__qualname__}"


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0].strip()


# ---------------------------------------------------------------- waiting without blocking an event loop

_SLICE = 1.0  # seconds: how long a thread goes on waiting for a task whose waiter was cancelled, and the program's end with it
_WAITERS = 64


@functools.cache
def _waiting_threads(process: int) -> ThreadPoolExecutor:
    """Threads that wait for results, apart from the event loop's own, which would run out. One pool for each process."""
    from concurrent.futures import ThreadPoolExecutor  # comes with asyncio

    return ThreadPoolExecutor(_WAITERS, thread_name_prefix="stem-wait")


async def _wait_elsewhere(client: Client, task_id: str, timeout: float | None) -> TaskRecord | None:
    import asyncio  # slow to import, and loaded already where this runs

    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    while True:
        left = _SLICE if end is None else max(0.0, end - loop.time())
        threads = _waiting_threads(os.getpid())
        record = await loop.run_in_executor(threads, client.wait, task_id, min(left, _SLICE))
        if record is not None or (end is not None and left <= _SLICE):
            return record
