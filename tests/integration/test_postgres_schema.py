"""The schema in Postgres: made by whoever comes first, or by hand, and shared by old and new."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stem_actors.adapters import is_same_place, open_stores
from stem_actors.adapters.postgres import Endpoint, migrate, standing
from stem_actors.adapters.postgres.schema import VERSION, migrations
from stem_actors.clock import SystemClock
from stem_actors.errors import ConfigError, StorageBroken
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import DeadLetter
from stem_actors.model.rate import Limit, Rate
from stem_actors.model.record import TaskRecord
from stem_actors.ports import Revocation, Stores
from tests.contract.fabric import ids, message, publish, results_of, settle, take, take_one
from tests.fixtures import postgres_server
from tests.fixtures.shell import Shell

HOW_TO = Path(__file__).parents[2] / "docs/how-to/postgres.md"
LONG = 30.0


@pytest.fixture
def schema() -> str:
    return postgres_server.new_schema()


@pytest.fixture
def url(schema: str) -> str:
    return f"{postgres_server.shared_url()}&schema={schema}"


def execute(sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
    return postgres_server.execute(postgres_server.shared_url(), sql, parameters)


@contextlib.contextmanager
def opened(url: str, **options: Any) -> Iterator[Stores]:
    stores = open_stores(url, clock=SystemClock(), **options)
    try:
        yield stores
    finally:
        stores.close()


def works(url: str) -> bool:
    with opened(url) as stores:
        publish(stores.broker, "a")
        return ids(take(stores.broker)) == ["a"]


# ---------------------------------------------------------------- migrations


def test_the_newest_migration_is_the_version_that_is_needed() -> None:
    assert [each.version for each in migrations()] == list(range(1, VERSION + 1))


def test_many_who_come_at_once_make_the_schema_once(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda number: use(url, number), range(8)))
    assert standing(Endpoint.from_url(url)) == (VERSION, 0)


def use(url: str, number: int) -> bool:
    with opened(url, namespace=f"n{number}") as stores:
        publish(stores.broker, "a")
        return ids(take(stores.broker)) == ["a"]


def test_nothing_is_made_before_it_is_used(url: str, schema: str) -> None:
    open_stores(url, clock=SystemClock()).close()
    assert execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)) == []


def test_a_schema_that_is_to_be_made_by_hand_is_asked_for(url: str) -> None:
    by_hand = f"{url}&migrate=false"
    with opened(by_hand) as stores, pytest.raises(StorageBroken, match="stem db migrate"):
        publish(stores.broker, "a")
    assert migrate(Endpoint.from_url(url)) == migrate(Endpoint.from_url(url)) == (VERSION, 0)
    assert works(by_hand)


def test_an_older_stem_goes_on_with_a_newer_schema_unless_that_says_it_cannot(url: str, schema: str) -> None:
    migrate(Endpoint.from_url(url))
    insert = f'INSERT INTO "{schema}".migration (version, breaks) VALUES (%s, %s)'
    execute(insert, (VERSION + 1, 0))
    assert works(url)
    execute(insert, (VERSION + 2, VERSION + 1))
    with opened(url) as stores, pytest.raises(StorageBroken, match="upgrade this one"):
        publish(stores.broker, "a")


# ---------------------------------------------------------------- by hand


def stem(tmp_path: Path, *words: str) -> tuple[int, str]:
    done = Shell(tmp_path).run("stem", *words)
    return done.returncode, done.stdout


def test_the_command_shows_and_changes_where_a_schema_stands(url: str, tmp_path: Path) -> None:
    code, said = stem(tmp_path, "db", "status", "--broker", url)
    assert (code, "there is none yet" in said) == (1, True)
    code, said = stem(tmp_path, "db", "migrate", "--broker", url)
    assert (code, "up to date" in said) == (0, True)
    assert stem(tmp_path, "db", "status", "--broker", url)[0] == 0
    assert stem(tmp_path, "db", "status", "--broker", "sqlite:///stem.db")[0] == 64


def test_the_sql_that_is_printed_makes_the_same_schema(url: str, schema: str, tmp_path: Path) -> None:
    code, sql = stem(tmp_path, "db", "sql", "--broker", url)
    assert code == 0
    execute(sql)
    assert works(f"{url}&migrate=false")
    made_by_hand = shape(schema)
    other = postgres_server.new_schema()
    migrate(Endpoint.from_url(url.replace(schema, other)))
    assert made_by_hand == shape(other)
    assert stem(tmp_path, "db", "sql", "--from", str(VERSION + 1), "--broker", url)[0] == 64


def shape(schema: str) -> list[Any]:
    return execute(
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_schema = %s ORDER BY 1, 2",
        (schema,),
    )


def test_a_user_with_the_rights_that_the_documentation_names_can_do_everything(url: str, schema: str) -> None:
    if "user=postgres" not in url:
        pytest.skip("takes a server that lets any user in")
    migrate(Endpoint.from_url(url))
    role = f"r{schema}"
    grants = re.findall(r"^    (GRANT .* TO worker;)$", HOW_TO.read_text(), re.MULTILINE)
    assert len(grants) == 3
    execute(f"CREATE ROLE {role} LOGIN; " + " ".join(grants).replace("worker", role).replace("SCHEMA stem", f'SCHEMA "{schema}"'))
    try:
        with opened(url.replace("user=postgres", f"user={role}")) as stores:
            use_all(stores)
        elsewhere = url.replace(f"schema={schema}", f"schema={schema}x").replace("user=postgres", f"user={role}")
        with opened(elsewhere) as stores, pytest.raises(StorageBroken, match="stem db"):
            publish(stores.broker, "a")
    finally:
        execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def use_all(stores: Stores) -> None:
    """Every store, and a message through every table."""
    publish(stores.broker, message("a", is_chosen_id=True), message("late", delay=0.01))
    settle(stores.broker, take_one(stores.broker), DeadLetter("why"))
    stores.broker.replay_dead_letters("default")
    stores.broker.sweep()
    stores.broker.purge("default", dead_letters=True)
    results_of(stores).set_many([TaskRecord("a", TaskState.SUCCEEDED)])
    stores.revocations.upsert_all([Revocation("a")])
    stores.pauses.pause(["mail"])
    lock = stores.locks.acquire("key", "me")
    assert lock is not None
    assert stores.locks.release(lock)
    assert stores.rate_limits.acquire([[Limit("key", Rate(1, 1.0))]]) == [None]
    stores.heartbeats.put_heartbeat("w", {}, 60)
    stores.control.send("all", b"x", 60)


# ---------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://h/db", "postgres://h:5432/db"),
        ("postgresql://u:secret@h:6000/db?schema=jobs", "postgres://h:6000/db?schema=jobs"),
        ("postgres+ssl://[::1]:1/db", "postgres://[::1]:1/db"),
        ("postgres://a:1,b:2/db?target_session_attrs=read-write", "postgres://a:1,b:2/db"),
        ("postgres:///db?host=/run/postgresql&password=secret", "postgres:///run/postgresql:5432/db"),
        ("postgres://u%40x:p%2Fsecret@h/db", "postgres://h:5432/db"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert str(Endpoint.from_url(url)) == shown
    assert "secret" not in repr(Endpoint.from_url(url))


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:secret@h:99999/db",
        "postgres://h:port/db",
        "postgres://h/db?schema=Not-a-name",
        "postgres://h/db?poll_only=perhaps",
        "postgres://h/db?poll_interval=soon",
        "postgres://h/db#secret",
    ],
)
def test_a_url_that_is_not_understood_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ConfigError, match="looks like postgres://") as caught:
        Endpoint.from_url(url)
    assert "secret" not in str(caught.value)


def test_two_urls_of_one_schema_are_one_place() -> None:
    assert is_same_place("postgres://me@h/db", "postgresql://you:x@h:5432/db?sslmode=require")
    assert not is_same_place("postgres://h/db", "postgres://h/db?schema=other")


def test_without_the_library_the_error_is_the_line_that_installs_it() -> None:
    program = """
import sys
sys.modules["psycopg"] = None
from stem_actors.adapters import open_stores
from stem_actors.clock import SystemClock
from stem_actors.errors import ConfigError
try:
    open_stores("postgres://h/db", clock=SystemClock()).broker.depths()
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG, check=True)
    assert done.stdout.strip() == "Postgres stores need psycopg: pip install 'stem-actors[postgres]'"
