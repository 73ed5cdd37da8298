"""Enqueue reports and read their results over TLS; show how the server sees us, and what it is like to trust nobody."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
from tasks import app, generate_report

from stem_actors import StemError

REPORTS = ("revenue", "churn")
PATIENCE = 60.0
CONNECTIONS = """
    SELECT application_name, ssl, version, cipher, client_dn
    FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
    WHERE application_name LIKE 'stem-%' AND usename = current_user ORDER BY 1
"""


def main() -> int:
    with app:
        handles = app.enqueue_many(generate_report.call(name) for name in REPORTS)
        for handle in handles:
            print(f"done: {handle.get(timeout=PATIENCE)}, as {handle.id}", flush=True)
        is_encrypted = show_connections()
    return 0 if is_encrypted and is_refused_without_trust() else 1


def show_connections() -> bool:
    """Whether all of ours, the worker's and this program's, are encrypted, as the server has it."""
    ours = app.settings
    with psycopg.connect(
        ours.result_backend_url or "", sslrootcert=ours.tls_ca_cert, sslcert=ours.tls_client_cert, sslkey=ours.tls_client_key
    ) as connection:
        found = connection.execute(CONNECTIONS).fetchall()
    for name, is_encrypted, version, cipher, client in found:
        print(f"connection: {name}: " + (f"{version}, {cipher}, from {client}" if is_encrypted else "plain"), flush=True)
    return bool(found) and all(is_encrypted for _, is_encrypted, *_ in found)


def is_refused_without_trust() -> bool:
    """Whether one who trusts the authorities of the system only, which ours is not among, gets no connection."""
    print("\n$ STEM_TLS_CA_CERT= stem health", flush=True)
    environ = {**os.environ, "STEM_TLS_CA_CERT": ""}
    return subprocess.run(["stem", "health"], env=environ, check=False, stdin=subprocess.DEVNULL).returncode != 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StemError as error:
        sys.exit(f"enqueuer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
