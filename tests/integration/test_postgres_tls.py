"""TLS and mutual TLS to a real Postgres: what gets through, and what an operator is told when it does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors.adapters import open_configured
from stem_actors.adapters.handshake import HandshakeFailed
from stem_actors.clock import SystemClock
from stem_actors.config import resolve
from stem_actors.errors import BrokerUnavailable, ConfigError
from stem_actors.ports import Done, Stores
from stem_chaos.servers.postgres import give_to_owner
from tests.contract.fabric import ids, publish, settle, take
from tests.fixtures.certificates import Authority
from tests.fixtures.postgres_server import PostgresServer, own_server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "authority")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[PostgresServer]:
    """With a certificate for localhost; who comes to 127.0.0.1 as `mutual` has to show one, too."""
    cert, key = authority.issue("server", "DNS:localhost")
    with own_server() as server:
        for source, name in ((cert, "server.crt"), (key, "server.key"), (authority.cert, "root.crt")):
            give_to_owner(Path(shutil.copy(source, server.data / name)))
        (server.data / "pg_hba.conf").write_text("local all all trust\nhostssl all mutual all cert\nhost all all all trust\n")
        server.execute("CREATE ROLE mutual LOGIN SUPERUSER")
        for setting in ("ssl = on", "ssl_ca_file = 'root.crt'"):
            server.execute(f"ALTER SYSTEM SET {setting}")
        server.restart("fast")
        yield server


def url_of(server: PostgresServer, host: str = "localhost", user: str = "postgres", scheme: str = "postgres+ssl") -> str:
    return f"{scheme}://{user}@{host}:{server.port}/postgres"


def opened(url: str, **variables: object) -> Stores:
    """Stores as a process opens them that has these variables, named without `STEM_TLS_`."""
    environ = {f"STEM_TLS_{name.upper()}": str(value) for name, value in variables.items()}
    return open_configured(resolve({"broker_url": url}, environ).settings, SystemClock())


def failure(url: str, **variables: object) -> str:
    with pytest.raises((BrokerUnavailable, ConfigError)) as caught:
        stores = opened(url, **variables)
        try:
            publish(stores.broker, "a")
        finally:
            stores.close()
    return str(caught.value)


def works(stores: Stores) -> bool:
    try:
        publish(stores.broker, "a")
        (handout,) = take(stores.broker)
        return ids([handout]) == ["a"] and settle(stores.broker, handout) == Done()
    finally:
        stores.close()


@pytest.mark.parametrize("scheme", ["postgres+ssl", "postgresql+ssl"])
def test_a_server_of_our_authority_is_trusted_and_talked_to_over_tls(
    server: PostgresServer, authority: Authority, scheme: str
) -> None:
    assert works(opened(url_of(server, scheme=scheme), ca_cert=authority.cert))
    assert works(opened(url_of(server, scheme="postgres") + "?sslmode=verify-full", ca_cert=authority.cert))


def test_connections_are_encrypted(server: PostgresServer, authority: Authority) -> None:
    stores = opened(url_of(server), ca_cert=authority.cert)
    publish(stores.broker, "a")
    query = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE %s"
    assert set(server.execute(query, (f"stem-{os.getpid()}%",))) == {(True,)}
    take(stores.broker)
    stores.close()


def test_a_server_of_another_authority_is_refused_with_its_certificate_and_the_remedy(
    server: PostgresServer, folder: Path
) -> None:
    said = failure(url_of(server), ca_cert=Authority(folder, "another").cert)
    for part in ("TLS handshake failed", "It is not signed by", "commonName=server", "localhost", "STEM_TLS_CA_CERT"):
        assert part in said, said


def test_the_systems_authorities_do_not_know_ours(server: PostgresServer) -> None:
    assert "STEM_TLS_CA_CERT" in failure(url_of(server))


def test_another_host_name_is_refused(server: PostgresServer, authority: Authority) -> None:
    said = failure(url_of(server, "127.0.0.1"), ca_cert=authority.cert)
    assert "mismatch" in said
    assert "alternative names" in said


def test_insecure_mode_trusts_anybody_and_warns(server: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    assert works(opened(url_of(server, "127.0.0.1"), allow_insecure="true"))
    assert "not verified" in caplog.text


def test_a_server_that_wants_a_certificate_of_ours_gets_it(server: PostgresServer, authority: Authority) -> None:
    cert, key = authority.issue("mutual", "DNS:client")
    key.chmod(0o600)
    url = url_of(server, user="mutual")
    assert works(opened(url, ca_cert=authority.cert, client_cert=cert, client_key=key))
    said = failure(url, ca_cert=authority.cert)
    assert "client certificate required" in said
    assert "STEM_TLS_CLIENT_CERT" in said


def test_a_file_that_is_missing_is_named_by_its_variable(server: PostgresServer) -> None:
    assert "STEM_TLS_CA_CERT names /nowhere" in failure(url_of(server), ca_cert="/nowhere")


def test_a_server_without_tls_is_said_to_have_none(authority: Authority) -> None:
    with own_server() as plain, pytest.raises(HandshakeFailed, match="speaks no TLS"):
        stores = opened(url_of(plain), ca_cert=authority.cert)
        try:
            publish(stores.broker, "a")
        finally:
            stores.close()
