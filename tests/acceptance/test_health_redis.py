"""`stem health` and `stem-node` on Redis: what the server is, what is wrong with it, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.certificates import Authority, secure, secure_server
from tests.fixtures.node import Place
from tests.fixtures.redis_server import RedisServer, own_server
from tests.fixtures.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Set up as one should, with a password."""
    with own_server("--requirepass", "right-secret", "--appendonly", "yes", "--maxmemory", "100mb") as made:
        yield made


@pytest.fixture(scope="module")
def dropping() -> Iterator[RedisServer]:
    with own_server("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as made:
        yield made


def health(shell: Shell, url: str, *words: str) -> tuple[int, list[dict[str, Any]]]:
    done = shell.run("stem", "health", "--broker", url, "--json", *words)
    assert "secret" not in done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


def with_password(server: RedisServer, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{server.port}/0"


def test_a_server_is_described_and_its_password_is_not(shell: Shell, server: RedisServer) -> None:
    code, found = health(shell, with_password(server, "right-secret"))
    assert (code, {each["status"] for each in found}) == (0, {"ok"})
    store = found[0]["context"]["store"]
    assert (store["kind"], store["persistence"], store["eviction"], store["canDropTasks"]) == (
        "redis",
        "aof",
        "noeviction",
        False,
    )
    assert int(store["version"].split(".")[0]) >= 7
    assert 0 < store["memoryLeftBytes"] < 100 * 2**20
    assert abs(store["clockOffsetMs"]) < 1000
    assert "hints" not in found[0]["context"]
    text = shell.out("stem", "health", "--broker", with_password(server, "right-secret"))
    for part in ("persistence aof", "eviction noeviction", "MiB of memory left", "clock "):
        assert part in text
    assert "secret" not in text


def test_a_wrong_password_is_an_error_that_does_not_repeat_it(shell: Shell, server: RedisServer) -> None:
    code, found = health(shell, with_password(server, "wrong-secret"))
    assert (code, found[0]["status"]) == (70, "error")
    assert "Check user name and password" in found[0]["message"]


def test_a_server_that_may_drop_tasks_fails_the_check_unless_that_is_accepted(shell: Shell, dropping: RedisServer) -> None:
    code, found = health(shell, dropping.url)
    assert (code, [each["status"] for each in found]) == (70, ["error"] + ["ok"] * 7)
    assert "drops tasks" in found[0]["message"]
    assert any("noeviction" in hint and "--accept-data-loss" in hint for hint in found[0]["context"]["hints"])
    assert any("appendonly yes" in hint for hint in found[0]["context"]["hints"])
    assert health(shell, f"{dropping.url}&accept_data_loss=true")[0] == 0
    shell.environ["STEM_ACCEPT_DATA_LOSS"] = "true"
    assert health(shell, dropping.url)[0] == 0


def test_little_memory_left_is_told_with_the_remedy(shell: Shell) -> None:
    with own_server("--appendonly", "yes") as server:
        server.command("SETRANGE", "filler", 40 * 2**20, "x")
        used = int(server.command("INFO", "memory")["used_memory"])
        server.command("CONFIG", "SET", "maxmemory", used + 3 * 2**20)
        (hint,) = health(shell, server.url)[1][0]["context"]["hints"]
    assert "raise maxmemory" in hint


# ---------------------------------------------------------------- stem-node


def test_a_node_refuses_a_server_that_drops_tasks_and_says_what_to_do(place: Place, dropping: RedisServer) -> None:
    node = place.start("--broker", dropping.url, is_ready=False)
    assert node.wait(30) == 70
    last = node.log.splitlines()[-1]
    assert "maxmemory-policy allkeys-lru" in last
    assert "noeviction" in last
    assert "--accept-data-loss" in last


def test_a_node_that_is_told_to_works_there(place: Place, dropping: RedisServer) -> None:
    place.start("--broker", dropping.url, "--accept-data-loss", "--namespace", "accepting")


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture(scope="module")
def secured(authority: Authority) -> Iterator[str]:
    port, options = secure_server(authority, *authority.issue("server", "DNS:localhost"), "no")
    with secure(*options, "--appendonly", "yes"):
        yield f"rediss://localhost:{port}/0"


def test_a_failed_handshake_is_told_with_certificate_trust_and_remedy(shell: Shell, secured: str, authority: Authority) -> None:
    code, found = health(shell, secured.replace("//", "//user:my-secret@"))
    assert code == 70
    assert found[0]["message"].startswith(f"TLS handshake failed for {secured}: ")
    tls = found[0]["context"]["tls"]
    assert (tls["endpoint"], tls["caCertificate"], tls["clientCertificate"]) == (secured, "system", "not provided")
    assert tls["allowInsecure"] is False
    certificate = tls["certificate"]
    assert (certificate["subject"], certificate["issuer"]) == ("commonName=server", "commonName=authority")
    assert certificate["names"] == ["localhost"]
    assert "GMT" in certificate["validFrom"]
    assert "GMT" in certificate["validTo"]
    assert any("STEM_TLS_CA_CERT" in hint for hint in found[0]["context"]["hints"])
    assert all("could not be talked to" in each["message"] for each in found[1:])
    code, text = 70, shell.run("stem", "health", "--broker", secured).stdout
    for part in (secured, "commonName=server", "commonName=authority", "valid from", "CA certificate system", "not provided"):
        assert part in text


def test_with_the_authority_the_check_is_well_and_without_verification_it_says_so(
    shell: Shell, secured: str, authority: Authority
) -> None:
    code, found = health(shell, secured, "--allow-insecure")
    assert (code, found[0]["status"]) == (0, "ok")
    assert any("not verified" in hint for hint in found[0]["context"]["hints"])
    shell.environ["STEM_TLS_CA_CERT"] = str(authority.cert)
    code, found = health(shell, secured)
    assert (code, "hints" in found[0]["context"]) == (0, False)


def test_a_tls_setting_that_cannot_be_used_is_a_configuration_error(shell: Shell, secured: str) -> None:
    shell.environ["STEM_TLS_CA_CERT"] = "/nowhere/ca.crt"
    code, said = shell.code("stem", "health", "--broker", secured)
    assert (code, "STEM_TLS_CA_CERT" in said) == (64, True)
