"""A namespace that a program made for itself on Postgres: counted, and gone as a whole, while its neighbours stay."""

from __future__ import annotations

from stem_actors import Settings, Stem
from stem_actors.adapters import postgres
from stem_cli.namespaces import forget_namespace
from tests.fixtures.postgres_server import execute, new_schema, shared_url

TABLES = ("ready", "delayed", "revocation")


def test_a_namespace_goes_with_all_it_has_and_no_other_does() -> None:
    url, schema = shared_url(), new_schema()
    own, other = (Settings(broker_url=f"{url}&schema={schema}", namespace=name) for name in ("own", "other"))
    endpoint = postgres.Endpoint.from_url(own.broker_url)
    for settings in (own, other):
        with Stem(settings=settings) as app:
            app.enqueue_by_name("work", [1], task_id="now", queue="q")
            app.enqueue_by_name("work", [1], task_id="later", queue="q", countdown=60).revoke()
    before = postgres.count(endpoint, "own", TABLES)
    assert before[0] == 3
    assert before[1] > 0
    forget_namespace(own)
    assert postgres.count(endpoint, "own", TABLES)[0] == 0
    assert postgres.count(endpoint, "other", TABLES)[0] == 3
    tables = execute(url, "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", [schema])
    rows = {table: execute(url, f"SELECT count(*) FROM {schema}.{table}")[0][0] for (table,) in tables}
    found = {table: count for table, count in rows.items() if count}
    assert found == {
        "namespace": 1,
        "migration": 1,
        "queue": 1,
        "ready": 1,
        "delayed": 1,
        "named": 2,
        "revocation": 1,
        "sender": found["sender"],
        "control": 1,
    }


def test_a_namespace_that_nobody_used_is_empty_and_can_be_forgotten() -> None:
    settings = Settings(broker_url=f"{shared_url()}&schema={new_schema()}", namespace="unknown")
    endpoint = postgres.Endpoint.from_url(settings.broker_url)
    postgres.migrate(endpoint)
    forget_namespace(settings)
    assert postgres.count(endpoint, "unknown", TABLES)[0] == 0
