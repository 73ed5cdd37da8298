"""Tasks that are enqueued inside a transaction of the application: there when it is committed, never there when it is not."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

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


def test_rows_of_the_callers_making_are_no_hindrance(app: Stem, task: Any, url: str) -> None:
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
        handle = task.enqueue(1, connection=connection)
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


# ---------------------------------------------------------------- SQLAlchemy


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = {"prefixes": ["TEMPORARY"]}  # noqa: RUF012  # SQLAlchemy's manner
    number: Mapped[int] = mapped_column(primary_key=True)


Work: TypeAlias = sqlalchemy.Connection | Session
WAYS: dict[str, tuple[Callable[[sqlalchemy.Engine], Work], Callable[[Any], Any]]] = {
    "connection": (sqlalchemy.Engine.connect, lambda connection: connection),
    "the session's connection": (Session, lambda session: session.connection()),
    "session": (Session, lambda session: session),
}


@pytest.fixture
def engine(url: str) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine("postgresql+psycopg" + url[url.index("://") :])
    Base.metadata.create_all(engine)  # in the one connection that the pool has, and hands out again and again
    yield engine
    engine.dispose()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def work(engine: sqlalchemy.Engine, way: str) -> Iterator[Work]:
    begin, _ = WAYS[way]
    with begin(engine) as work:
        yield work


@pytest.fixture
def within(work: Work, way: str) -> Callable[[], Any]:
    """What is given as `connection`."""
    _, connection_of = WAYS[way]
    return lambda: connection_of(work)


def orders(engine: sqlalchemy.Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(Order)) or 0


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
def test_sqlalchemy_commits_a_task_with_what_it_is_about(
    app: Stem, task: Any, engine: sqlalchemy.Engine, work: Work, within: Callable[[], Any], is_first: bool
) -> None:
    if not is_first:
        work.execute(sqlalchemy.insert(Order).values(number=1))
    handle = task.enqueue(1, connection=within())
    if is_first:
        work.execute(sqlalchemy.insert(Order).values(number=1))
    assert waiting(app) == []
    work.commit()
    assert waiting(app) == [handle.id]
    work.close()
    assert orders(engine) == 1


def test_sqlalchemy_commits_a_task_that_is_all_there_is_in_a_transaction(
    app: Stem, task: Any, work: Work, within: Callable[[], Any]
) -> None:
    handles = []
    for number in range(2):  # the connection's first transaction, and one after another
        handles.append(task.enqueue(number, connection=within()))
        work.commit()
    assert waiting(app) == [handle.id for handle in handles]


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("ending", ["rollback", "close"])
def test_sqlalchemy_rolls_back_a_task_with_what_it_is_about(
    app: Stem, task: Any, engine: sqlalchemy.Engine, work: Work, within: Callable[[], Any], is_first: bool, ending: str
) -> None:
    if not is_first:
        work.execute(sqlalchemy.insert(Order).values(number=1))
    task.enqueue(1, connection=within())
    task.options(queue="other", countdown=5.0, connection=within()).enqueue(2)
    getattr(work, ending)()
    assert app.stores.broker.depths() == []
    work.close()
    assert orders(engine) == 0


def test_a_savepoint_of_sqlalchemy_that_is_rolled_back_takes_its_tasks_along_and_no_others(
    app: Stem, task: Any, work: Work, within: Callable[[], Any]
) -> None:
    before = task.enqueue(1, connection=within())
    with work.begin_nested() as savepoint:
        task.enqueue(2, connection=within())
        savepoint.rollback()
    after = task.enqueue(3, connection=within())
    work.commit()
    assert waiting(app) == [before.id, after.id]


def test_a_refused_task_leaves_the_transaction_of_sqlalchemy_usable(
    app: Stem, task: Any, engine: sqlalchemy.Engine, work: Work, within: Callable[[], Any]
) -> None:
    task_id = str(uuid.uuid4())
    task.options(task_id=task_id).enqueue(0)
    work.execute(sqlalchemy.insert(Order).values(number=1))
    with pytest.raises(DuplicateTaskId):
        task.options(task_id=task_id, connection=within()).enqueue(1)
    work.commit()
    assert waiting(app) == [task_id]
    work.close()
    assert orders(engine) == 1


def test_an_object_of_a_session_and_its_task_are_committed_together(app: Stem, task: Any, engine: sqlalchemy.Engine) -> None:
    with Session(engine) as session, session.begin():
        session.add(Order(number=42))
        handle = task.enqueue(42, connection=session.connection())
    assert waiting(app) == [handle.id]
    with pytest.raises(sqlalchemy.exc.IntegrityError), Session(engine) as session, session.begin():
        task.enqueue(42, connection=session.connection())
        session.add(Order(number=42))  # which is there: told at the commit
    assert waiting(app) == []


def test_a_block_of_sqlalchemy_that_raises_takes_its_tasks_back(app: Stem, task: Any, engine: sqlalchemy.Engine) -> None:
    with pytest.raises(ZeroDivisionError), engine.begin() as connection:
        task.enqueue(1, connection=connection)
        _ = 1 // 0
    with engine.begin() as connection:
        handle = task.enqueue(2, connection=connection)
    assert waiting(app) == [handle.id]


def test_a_connection_of_sqlalchemy_in_autocommit_mode_stores_a_task_at_once(
    app: Stem, task: Any, engine: sqlalchemy.Engine
) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        handle = task.enqueue(1, connection=connection)
        assert waiting(app) == [handle.id]


def test_many_are_enqueued_in_one_transaction_of_sqlalchemy(app: Stem, task: Any, work: Work, within: Callable[[], Any]) -> None:
    options = task.options(connection=within())
    app.enqueue_many([options.call(number) for number in range(1500)])
    assert waiting(app) == []
    work.commit()
    assert app.stores.broker.depths(["default"])[0].pending == 1500
