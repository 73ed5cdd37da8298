"""`stem db`: the schema that Stem keeps in Postgres, for those who change it by hand or with other rights than workers have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from stem_actors.adapters import SCHEMES
from stem_actors.adapters.postgres import VERSION, Endpoint, Standing, migrate, migration_sql, standing
from stem_actors.adapters.tls import Identity
from stem_actors.config import Settings
from stem_actors.errors import UsageError
from stem_cli.connection import resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output

__all__ = ["bring_up_to_date", "show_sql", "show_status"]


def show_status(args: argparse.Namespace, output: Output) -> int:
    """`OK` when workers of this version can start on every schema, else `NOTHING`."""
    found = [(endpoint, standing(endpoint)) for endpoint in _endpoints(resolved(args).settings)]
    _show(found, output)
    return ExitCode.OK if all(map(_is_well, (each for _, each in found))) else ExitCode.NOTHING


def bring_up_to_date(args: argparse.Namespace, output: Output) -> int:
    with output.progress("migrating"):
        found = [(endpoint, migrate(endpoint)) for endpoint in _endpoints(resolved(args).settings)]
    _show(found, output)
    return ExitCode.OK if all(map(_is_well, (each for _, each in found))) else ExitCode.NOTHING


def show_sql(args: argparse.Namespace, output: Output) -> int:
    """Asks no server."""
    after = args.after
    if not 0 <= after <= VERSION:
        raise UsageError(f"--from is the version a schema is at, a number from 0 (there is none) to {VERSION}")
    scripts = {endpoint.schema: migration_sql(endpoint, after) for endpoint in _endpoints(resolved(args).settings)}
    if output.as_json:
        output.document([{"schema": schema, "from": after, "to": VERSION, "sql": sql} for schema, sql in scripts.items()])
    else:
        for sql in scripts.values():
            output.line(sql.rstrip())
    return ExitCode.OK


def _endpoints(settings: Settings) -> list[Endpoint]:
    """Where settings lead that name Postgres, each place once."""
    urls = (settings.broker_url, settings.result_backend_url, settings.revoke_store_url, settings.rate_limit_url)
    found: dict[str, Endpoint] = {}
    for url in urls:
        if url is not None and SCHEMES.get(url.partition(":")[0].lower()) == "postgres":
            endpoint = replace(Endpoint.from_url(url), identity=Identity.from_settings(settings))
            found.setdefault(str(endpoint), endpoint)
    if not found:
        raise UsageError("no store is in Postgres; name one with --broker postgres://HOST/DATABASE, or STEM_BROKER_URL")
    return list(found.values())


def _is_well(found: Standing) -> bool:
    return found.version >= VERSION >= found.breaks


def _show(found: Sequence[tuple[Endpoint, Standing]], output: Output) -> None:
    if output.as_json:
        output.document(
            [
                {
                    "store": str(endpoint),
                    "schema": endpoint.schema,
                    "version": each.version,
                    "needed": VERSION,
                    "isUpToDate": _is_well(each),
                }
                for endpoint, each in found
            ]
        )
        return
    rows = [(endpoint, endpoint.schema, each.version, VERSION, _said(each)) for endpoint, each in found]
    output.table(("Store", "Schema", "Version", "Needed", "Status"), rows)


def _said(found: Standing) -> str:
    if found.breaks > VERSION:
        return "changed by a newer Stem: upgrade this one"
    if found.version < VERSION:
        return "there is none yet: stem db migrate" if not found.version else "behind: stem db migrate"
    return "up to date" if found.version == VERSION else "newer, and fit for this Stem"
