from __future__ import annotations

import socket
from pathlib import Path

from stem_cli.node_plans import Plan
from stem_cli.pid_file import PidFile


def plan(admin: tuple[str, int] | None) -> Plan:
    return Plan("a", PidFile(Path("a.pid")), Path("a.log"), ["stem-node"], Path(), {}, admin)


def test_a_node_takes_the_first_admin_address_that_nobody_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = int(plan(("127.0.0.1", port)).free_admin()["STEM_ADMIN"].rpartition(":")[2])
    assert port < found < port + 100
    assert plan(("127.0.0.1", found)).free_admin() == {"STEM_ADMIN": f"127.0.0.1:{found}"}
    assert plan(None).free_admin() == {}
