"""A namespace as a whole: how much is in it, and an end of all of it. For programs that made one for themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stem_actors.adapters.postgres.schema import rendered

__all__ = ["count", "forget"]

_NUMBER = "SELECT id FROM @namespace WHERE name = %s"
_BY_NUMBER = """
    SELECT table_name FROM information_schema.columns
    WHERE table_schema = %s AND column_name = 'namespace' AND table_name <> 'queue' ORDER BY table_name
"""
_BYTES = """
    SELECT coalesce(sum(pg_total_relation_size(class.oid)), 0)::bigint FROM pg_class AS class
    JOIN pg_namespace AS space ON space.oid = class.relnamespace WHERE space.nspname = %s AND class.relkind = 'r'
"""
_IN_QUEUES = "queue IN (SELECT id FROM @queue WHERE namespace = %s)"


def forget(connection: Any, schema: str, name: str) -> None:
    """Delete it from every table, in one transaction."""
    with connection.transaction():
        found = connection.execute(rendered(_NUMBER, schema), [name]).fetchone()
        if found is None:
            return
        connection.execute(rendered(f"DELETE FROM @ready WHERE {_IN_QUEUES}", schema), found)
        tables = [table for (table,) in connection.execute(_BY_NUMBER, [schema])]
        for table in [*tables, "queue"]:
            connection.execute(rendered(f"DELETE FROM @{table} WHERE namespace = %s", schema), found)
        connection.execute(rendered("DELETE FROM @namespace WHERE id = %s", schema), found)


def count(connection: Any, schema: str, name: str, tables: Iterable[str]) -> tuple[int, int]:
    """Its rows in these tables, and the bytes of all tables of the schema."""
    ((size,),) = connection.execute(_BYTES, [schema]).fetchall()
    found = connection.execute(rendered(_NUMBER, schema), [name]).fetchone()
    if found is None:
        return 0, size
    rows = 0
    for table in tables:
        which = _IN_QUEUES if table == "ready" else "namespace = %s"
        ((more,),) = connection.execute(rendered(f"SELECT count(*) FROM @{table} WHERE {which}", schema), found).fetchall()
        rows += more
    return rows, size
