"""TLS and mutual TLS to a real server: what gets through, and what an operator is told when it does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors.adapters import open_stores
from stem_actors.clock import SystemClock
from stem_actors.errors import BrokerUnavailable, ConfigError
from tests.contract.fabric import PROMPTLY, ids, meanwhile, publish, take
from tests.fixtures.certificates import Authority, secure, secure_server
from tests.fixtures.redis_server import RedisServer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "authority")


@pytest.fixture(scope="module")
def secured(authority: Authority) -> Iterator[tuple[RedisServer, int]]:
    """A server with a certificate for localhost, and its port."""
    port, options = secure_server(authority, *authority.issue("server", "DNS:localhost"), "no")
    with secure(*options) as server:
        yield server, port


@pytest.fixture(scope="module")
def mutual(authority: Authority) -> Iterator[int]:
    port, options = secure_server(authority, *authority.issue("mutual", "DNS:localhost"), "yes")
    with secure(*options):
        yield port


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CA_CERT", "CLIENT_CERT", "CLIENT_KEY", "ALLOW_INSECURE"):
        monkeypatch.delenv(f"STEM_TLS_{name}", raising=False)


def failure(url: str) -> str:
    stores = open_stores(url, clock=SystemClock())
    with pytest.raises((BrokerUnavailable, ConfigError)) as caught:
        publish(stores.broker, "a")
    stores.close()
    return str(caught.value)


def test_tasks_travel_over_tls_and_waiting_consumers_are_woken(
    secured: tuple[RedisServer, int], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEM_TLS_CA_CERT", str(authority.cert))
    stores = open_stores(f"rediss://localhost:{secured[1]}/0", clock=SystemClock())
    intake = stores.broker.open_intake(["default"], "holder-1")
    with meanwhile(intake.receive, 10, 30.0) as received:
        publish(stores.broker, "a")
        assert ids(received.result(PROMPTLY)) == ["a"]
    publish(stores.broker, *(f"task-{number}" for number in range(500)))
    assert len(take(stores.broker, 1000)) == 500
    stores.close()


def test_an_unknown_authority_is_named_with_the_certificate_and_the_variable_to_set(secured: tuple[RedisServer, int]) -> None:
    said = failure(f"rediss://localhost:{secured[1]}/0")
    for part in (
        f"rediss://localhost:{secured[1]}/0",
        "commonName=server",
        "commonName=authority",
        "valid from",
        "STEM_TLS_CA_CERT",
    ):
        assert part in said


def test_a_wrong_host_name_is_told_with_those_of_the_certificate(
    secured: tuple[RedisServer, int], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEM_TLS_CA_CERT", str(authority.cert))
    said = failure(f"rediss://127.0.0.1:{secured[1]}/0")
    assert "names localhost" in said
    assert "Use a host name that the certificate is for" in said


def test_an_expired_certificate_is_told_with_its_dates(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEM_TLS_CA_CERT", str(authority.cert))
    port, options = secure_server(authority, *authority.issue("expired", "DNS:localhost", days=-1), "no")
    with secure(*options):
        said = failure(f"rediss://localhost:{port}/0")
    assert "expired" in said
    assert "Renew the server's certificate" in said


def test_a_server_that_wants_a_client_certificate_gets_one_or_is_named_as_wanting_it(
    mutual: int, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEM_TLS_CA_CERT", str(authority.cert))
    url = f"rediss://localhost:{mutual}/0"
    assert "STEM_TLS_CLIENT_CERT" in failure(url)
    cert, key = authority.issue("client", "DNS:client")
    monkeypatch.setenv("STEM_TLS_CLIENT_CERT", str(cert))
    monkeypatch.setenv("STEM_TLS_CLIENT_KEY", str(key))
    stores = open_stores(url, clock=SystemClock())
    publish(stores.broker, "a")
    assert ids(take(stores.broker)) == ["a"]
    stores.close()


def test_new_certificates_count_from_the_next_connection_on(
    mutual: int, authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Authority(folder, "stranger")
    cert, key = stranger.issue("rotated", "DNS:client")
    monkeypatch.setenv("STEM_TLS_CA_CERT", str(authority.cert))
    monkeypatch.setenv("STEM_TLS_CLIENT_CERT", str(cert))
    monkeypatch.setenv("STEM_TLS_CLIENT_KEY", str(key))
    stores = open_stores(f"rediss://localhost:{mutual}/0", clock=SystemClock())
    with pytest.raises(BrokerUnavailable):
        publish(stores.broker, "a")
    for old, new in zip((cert, key), authority.issue("renewed", "DNS:client"), strict=True):
        shutil.copy(new, old)
    publish(stores.broker, "a")
    stores.close()


def test_a_port_without_tls_is_told_apart(secured: tuple[RedisServer, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stem_actors.adapters.redis.connection.ANSWER_TIMEOUT", 0.5)
    assert "does not speak TLS on this port" in failure(f"rediss://127.0.0.1:{secured[0].port}/0")


def test_verification_can_be_switched_off(secured: tuple[RedisServer, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEM_TLS_ALLOW_INSECURE", "true")
    stores = open_stores(f"rediss://127.0.0.1:{secured[1]}/0", clock=SystemClock())
    publish(stores.broker, "a")
    stores.close()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("STEM_TLS_CA_CERT", "/nowhere/ca.crt", "STEM_TLS_CA_CERT names /nowhere/ca.crt, which cannot be read"),
        ("STEM_TLS_CA_CERT", __file__, "holds no certificates"),
        ("STEM_TLS_CLIENT_CERT", __file__, "STEM_TLS_CLIENT_KEY is not"),
        ("STEM_TLS_CLIENT_KEY", __file__, "STEM_TLS_CLIENT_CERT is not"),
        ("STEM_TLS_ALLOW_INSECURE", "perhaps", "STEM_TLS_ALLOW_INSECURE"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    secured: tuple[RedisServer, int], monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert said in failure(f"rediss://localhost:{secured[1]}/0")
