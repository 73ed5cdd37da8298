"""`stem db`: the schema in Postgres."""

from __future__ import annotations

from stem_cli.parsers.base import Commands
from stem_cli.parsers.common import add_command, add_group

__all__ = ["add_db"]


def add_db(commands: Commands) -> None:
    database = add_group(commands, "db", "look after the schema in Postgres", "stem db status")
    add_command(
        database,
        "status",
        "db:show_status",
        "show which version the schema is at, and which this Stem needs",
        "stem db status --broker postgres://stem@db.example/app",
        more="Exits with 1 when workers of this version cannot start there.",
    )
    add_command(
        database,
        "migrate",
        "db:bring_up_to_date",
        "bring the schema up to date",
        "stem db migrate",
        more="Workers do so themselves, unless the URL says migrate=false. They may run meanwhile.",
    )
    schema_sql = add_command(
        database,
        "sql",
        "db:show_sql",
        "print the SQL that brings the schema up to date",
        "stem db sql --broker postgres://db.example/app",
        "stem db sql --from 1 | psql --host db.example app",
        more="Asks no server.",
    )
    schema_sql.add_argument(
        "--from", dest="after", metavar="VERSION", type=int, default=0, help="the version it is at (default: 0, there is none)"
    )
