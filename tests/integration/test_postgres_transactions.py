"""Tasks that are enqueued inside a transaction of the application: there when it is committed, never there when it is not."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from stem_actors import Stem
from stem_actors.errors import DuplicateTaskId, PayloadError, UsageError
from tests.contract.fabric import PROMPTLY, ids, meanwhile, take
from tests.fixtures import postgres_server

LONG = 30.0


@pytest.fixture
def url() -> str:
    return postgres_server.shared_url()


@pytest.fixture
def app(url: str) -> Iterator[Stem]:
    with Stem(url, namespace=postgres_server.new_namespace()) as app:
        yield app


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url) as connection:
        yield connection


@pytest.fixture
def task(app: Stem) -> Any:
    @app.task(name="shop.send_receipt")
    def send_receipt(order: int) -> None: ...

    return send_receipt


def waiting(app: Stem) -> list[str]:
    return ids(take(app.stores.broker))


def test_a_task_is_there_when_its_transaction_is_committed(app: Stem, task: Any, connection: psycopg.Connection[Any]) -> None:
    handle = task.enqueue(42, connection=connection)
    assert waiting(app) == []
    connection.commit()
    assert waiting(app) == [handle.id]


def test_a_task_is_gone_with_the_transaction_that_is_rolled_back(
    app: Stem, task: Any, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("CREATE TEMPORARY TABLE orders (number int)")
    connection.commit()
    task.enqueue(1, connection=connection)  # the first statement of a transaction, or among others
    connection.execute("INSERT INTO orders VALUES (1)")
    task.options(queue="other", countdown=5.0, connection=connection).enqueue(2)
    connection.rollback()
    assert waiting(app) == []
    assert app.stores.broker.depths() == []
    assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def test_without_a_transaction_it_is_stored_at_once(app: Stem, task: Any, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        handle = task.enqueue(1, connection=connection)
        assert waiting(app) == [handle.id]
        with connection.transaction():
            inside = task.enqueue(2, connection=connection)
            assert waiting(app) == []
        assert waiting(app) == [inside.id]


def test_a_worker_that_waits_is_woken_by_the_commit(app: Stem, task: Any, connection: psycopg.Connection[Any]) -> None:
    intake = app.stores.broker.open_intake(["default"], "holder-1")
    with meanwhile(intake.receive, 10, LONG) as received:
        handle = task.enqueue(1, connection=connection)
        connection.commit()
        assert ids(received.result(PROMPTLY)) == [handle.id]


def test_many_are_enqueued_in_one_transaction(app: Stem, task: Any, connection: psycopg.Connection[Any]) -> None:
    within = task.options(connection=connection)
    app.enqueue_many([within.call(number) for number in range(1500)])
    assert waiting(app) == []
    connection.commit()
    assert app.stores.broker.depths(["default"])[0].pending == 1500


def test_a_refused_task_leaves_the_transaction_usable(app: Stem, task: Any, connection: psycopg.Connection[Any]) -> None:
    task_id = str(uuid.uuid4())
    task.options(task_id=task_id).enqueue(0)
    with pytest.raises(DuplicateTaskId):
        task.options(task_id=task_id).enqueue(1, connection=connection)
    with pytest.raises(PayloadError):
        task.options(queue="default", connection=connection).enqueue(object())
    handle = task.enqueue(2, connection=connection)
    connection.commit()
    assert waiting(app) == [task_id, handle.id]


def test_a_chosen_id_is_free_again_when_the_transaction_is_rolled_back(
    app: Stem, task: Any, connection: psycopg.Connection[Any]
) -> None:
    task_id = str(uuid.uuid4())
    task.options(task_id=task_id, connection=connection).enqueue(1)
    connection.rollback()
    task.options(task_id=task_id).enqueue(1)
    assert waiting(app) == [task_id]


def test_rows_of_the_callers_making_and_a_connection_inside_another_are_no_hindrance(app: Stem, task: Any, url: str) -> None:
    class Wrapped:  # as SQLAlchemy's connection has its driver's inside
        def __init__(self, driver_connection: Any) -> None:
            self.driver_connection = driver_connection

    class Outer:
        def __init__(self, connection: Any) -> None:
            self.connection = connection

    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
        handle = task.enqueue(1, connection=Outer(Wrapped(connection)))
        connection.commit()
    assert waiting(app) == [handle.id]


def test_what_is_no_connection_is_refused(app: Stem, task: Any, url: str) -> None:
    with pytest.raises(UsageError, match="psycopg 3"):
        task.enqueue(1, connection=object())
    with Stem("memory://") as other:

        @other.task
        def elsewhere() -> None: ...

        with psycopg.connect(url) as connection, pytest.raises(UsageError, match="Postgres only"):
            elsewhere.options(connection=connection).enqueue()


def test_a_task_with_a_parameter_of_that_name_gets_it_as_an_argument(app: Stem) -> None:
    @app.task
    def dial(connection: str) -> None: ...

    handle = dial.enqueue(connection="fast")
    assert waiting(app) == [handle.id]


def test_a_unique_task_is_unique_across_transactions(app: Stem, connection: psycopg.Connection[Any]) -> None:
    @app.task(name="shop.digest", unique=True)
    def digest(day: int) -> None: ...

    first = digest.options(connection=connection).enqueue(1)
    connection.commit()
    assert digest.options(connection=connection).enqueue(1).id == first.id
    connection.commit()
    assert waiting(app) == [first.id]
