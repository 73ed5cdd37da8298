"""The schema and its versions: a file of `migrations/` each, applied in order under an advisory lock.

Old and new workers run side by side on one schema, so a migration only adds; one that an older Stem cannot live with says so in
its first line (`-- breaks: N`: versions before N), and is written for a major release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from stem_actors.errors import StorageBroken

if TYPE_CHECKING:
    from stem_actors.adapters.postgres.endpoint import Endpoint

__all__ = ["VERSION", "Migration", "Standing", "ensure", "migrations", "rendered", "script", "standing"]

LOCK = 0x5374656D  # "Stem": the class of our advisory locks
_NAME = re.compile(r"@(\w+)")

_VERSIONS = """
    CREATE TABLE IF NOT EXISTS @migration (
        version    integer PRIMARY KEY,
        breaks     integer NOT NULL,    -- versions of Stem's schema before this one can no longer use it
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
_LATEST = "SELECT coalesce(max(version), 0) FROM @migration"
_DONE = "INSERT INTO @migration (version, breaks) VALUES ({version}, {breaks})"


class Migration(NamedTuple):
    """From the version before to `version`. What knows no version from `breaks` on can use the schema no longer."""

    version: int
    breaks: int
    sql: str


class Standing(NamedTuple):
    """What a schema has: the version it is at (0: nothing of ours), and the lowest that may use it."""

    version: int
    breaks: int


@cache
def migrations() -> tuple[Migration, ...]:
    folder = resources.files("stem_actors.adapters.postgres.migrations")
    found = []
    for file in folder.iterdir():
        if match := re.fullmatch(r"(\d{4})\.sql", file.name):
            sql = file.read_text(encoding="utf-8")
            breaks = re.match(r"-- breaks: (\d+)\n", sql)
            found.append(Migration(int(match[1]), int(breaks[1]) if breaks else 0, sql))
    return tuple(sorted(found))


VERSION = 1
"""What this Stem needs at least: the last file in `migrations/`."""


def rendered(sql: str, schema: str, others: Mapping[str, str] | None = None) -> str:
    """SQL with every `@name` replaced by a table of the schema, or by what `others` says."""
    known = others or {}
    return _NAME.sub(lambda match: known.get(match[1]) or f'"{schema}"."{match[1]}"', sql)


def script(after: int, schema: str) -> str:
    """The SQL that brings a schema from version `after` to the latest, as one transaction, for people to run."""
    parts = [f"SELECT pg_advisory_xact_lock({LOCK}, 0)", f'CREATE SCHEMA IF NOT EXISTS "{schema}"', rendered(_VERSIONS, schema)]
    for migration in migrations():
        if migration.version > after:
            parts += [rendered(migration.sql, schema).rstrip().rstrip(";"), _done(migration, schema)]
    return "BEGIN;\n\n" + ";\n\n".join(part.strip("\n") for part in parts) + ";\n\nCOMMIT;\n"


def _done(migration: Migration, schema: str) -> str:
    return rendered(_DONE.format(version=migration.version, breaks=migration.breaks), schema)


def standing(connection: Any, schema: str) -> Standing:
    """Where a schema stands. `connection` is psycopg's, in autocommit mode or in a transaction."""
    (table,) = connection.execute("SELECT to_regclass(%s)", (f'"{schema}"."migration"',)).fetchone()
    if table is None:
        return Standing(0, 0)
    row = connection.execute(rendered("SELECT coalesce(max(version), 0), coalesce(max(breaks), 0) FROM @migration", schema))
    return Standing(*row.fetchone())


def ensure(connection: Any, endpoint: Endpoint) -> None:
    """See to it that the schema can be used, and bring it up to date unless the URL says `migrate=false`.

    Raises:
        StorageBroken: it cannot, and why.
    """
    now = standing(connection, endpoint.schema)
    if now.version < VERSION:
        if not endpoint.migrate:
            raise StorageBroken(
                f"{endpoint} is at version {now.version}, and this Stem needs {VERSION}. Run `stem db migrate`, "
                "or what `stem db sql` prints."
            )
        now = migrate(connection, endpoint.schema)
    if now.breaks > VERSION:
        raise StorageBroken(
            f"{endpoint} was changed by a newer Stem (schema {now.version}) in a way that this one (schema {VERSION}) "
            "cannot follow: upgrade this one."
        )


def migrate(connection: Any, schema: str) -> Standing:
    """Apply what is missing, in one transaction; who comes second waits and finds it done. Returns where it stands then."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")  # to see what others did while we waited
        connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (LOCK,))
        if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchall():
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        connection.execute(rendered(_VERSIONS, schema))
        (before,) = connection.execute(rendered(_LATEST, schema)).fetchone()
        for migration in migrations():
            if migration.version > before:
                connection.execute(rendered(migration.sql, schema))
                connection.execute(_done(migration, schema))
        return standing(connection, schema)
