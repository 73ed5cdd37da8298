"""TLS and mutual TLS to a real server: what gets through, and what an operator is told when it does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors.adapters import open_configured
from stem_actors.clock import SystemClock
from stem_actors.config import resolve
from stem_actors.errors import BrokerUnavailable, ConfigError
from stem_actors.ports import Done, Stores
from tests.contract.fabric import PROMPTLY, ids, meanwhile, publish, settle, take
from tests.fixtures.certificates import Authority, secure, secure_server
from tests.fixtures.redis_server import RedisServer, new_namespace


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


def test_tasks_travel_over_tls_and_waiting_consumers_are_woken(secured: tuple[RedisServer, int], authority: Authority) -> None:
    stores = opened(f"rediss://localhost:{secured[1]}/0", ca_cert=authority.cert)
    intake = stores.broker.open_intake(["default"], "holder-1")
    with meanwhile(intake.receive, 10, 30.0) as received:
        publish(stores.broker, "a")
        assert ids(received.result(PROMPTLY)) == ["a"]
    publish(stores.broker, *(f"task-{number}" for number in range(500)))
    assert len(take(stores.broker, 1000)) == 500
    stores.close()


@pytest.mark.parametrize("which", ["TLS", "MTLS"])
def test_the_named_test_servers_are_reached(which: str) -> None:
    """Those of `cli/_init_test_env`."""
    variable = f"STEM_TEST_REDIS_{which}_URL"
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set: source cli/_init_test_env")
    given = {
        name: os.environ.get(f"STEM_TEST_REDIS_{which}_{name.upper()}", "") for name in ("ca_cert", "client_cert", "client_key")
    }
    environ = {"STEM_NAMESPACE": new_namespace(), **{f"STEM_TLS_{name.upper()}": path for name, path in given.items()}}
    stores = open_configured(resolve({"broker_url": os.environ[variable]}, environ).settings, SystemClock())
    publish(stores.broker, "a")
    (handout,) = take(stores.broker)
    assert settle(stores.broker, handout) == Done()
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


def test_a_wrong_host_name_is_told_with_those_of_the_certificate(secured: tuple[RedisServer, int], authority: Authority) -> None:
    said = failure(f"rediss://127.0.0.1:{secured[1]}/0", ca_cert=authority.cert)
    assert "names localhost" in said
    assert "Use a host name that the certificate is for" in said


def test_an_expired_certificate_is_told_with_its_dates(authority: Authority) -> None:
    port, options = secure_server(authority, *authority.issue("expired", "DNS:localhost", days=-1), "no")
    with secure(*options):
        said = failure(f"rediss://localhost:{port}/0", ca_cert=authority.cert)
    assert "expired" in said
    assert "valid from" in said
    assert "Renew the server's certificate" in said


def test_a_server_that_wants_a_client_certificate_gets_one_or_is_named_as_wanting_it(mutual: int, authority: Authority) -> None:
    url = f"rediss://localhost:{mutual}/0"
    assert "STEM_TLS_CLIENT_CERT" in failure(url, ca_cert=authority.cert)
    cert, key = authority.issue("client", "DNS:client")
    stores = opened(url, ca_cert=authority.cert, client_cert=cert, client_key=key)
    publish(stores.broker, "a")
    assert ids(take(stores.broker)) == ["a"]
    stores.close()


def test_new_certificates_count_from_the_next_connection_on(mutual: int, authority: Authority, folder: Path) -> None:
    stranger = Authority(folder, "stranger")
    cert, key = stranger.issue("rotated", "DNS:client")
    stores = opened(f"rediss://localhost:{mutual}/0", ca_cert=authority.cert, client_cert=cert, client_key=key)
    with pytest.raises(BrokerUnavailable):
        publish(stores.broker, "a")
    for old, new in zip((cert, key), authority.issue("renewed", "DNS:client"), strict=True):
        shutil.copy(new, old)
    publish(stores.broker, "a")
    stores.close()


def test_files_that_do_not_fit_for_a_moment_are_an_outage_to_who_was_connected_before(
    secured: tuple[RedisServer, int], authority: Authority
) -> None:
    """Certificate and key are replaced one after the other, and a worker goes on."""
    server, port = secured
    cert, key = authority.issue("old", "DNS:client")
    stores = opened(f"rediss://localhost:{port}/0", ca_cert=authority.cert, client_cert=cert, client_key=key)
    publish(stores.broker, "a")
    new_cert, new_key = authority.issue("new", "DNS:client")
    shutil.copy(new_cert, cert)
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(BrokerUnavailable, match="do not fit each other"):
        until_refused(stores)
    shutil.copy(new_key, key)
    publish(stores.broker, "b")
    assert ids(take(stores.broker)) == ["a", "b"]
    stores.close()


def until_refused(stores: Stores) -> None:
    """Ask until it is noticed that the old connection is gone."""
    for _ in range(3):
        try:
            stores.broker.depths()
        except BrokerUnavailable as error:
            if "does not answer" not in str(error):
                raise


def test_a_port_without_tls_is_told_apart(secured: tuple[RedisServer, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stem_actors.adapters.redis.connection.ANSWER_TIMEOUT", 0.5)
    assert "does not speak TLS on this port" in failure(f"rediss://127.0.0.1:{secured[0].port}/0")


def test_verification_can_be_switched_off_which_each_connection_warns_of(
    secured: tuple[RedisServer, int], caplog: pytest.LogCaptureFixture
) -> None:
    stores = opened(f"rediss://127.0.0.1:{secured[1]}/0", allow_insecure="true")
    publish(stores.broker, "a")
    stores.close()
    assert "not verified (STEM_TLS_ALLOW_INSECURE)" in caplog.text


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ca_cert": "/nowhere/ca.crt"}, "STEM_TLS_CA_CERT names /nowhere/ca.crt, which cannot be read"),
        ({"ca_cert": __file__}, "holds no certificates"),
        ({"client_cert": __file__}, "STEM_TLS_CLIENT_KEY is not"),
        ({"client_key": __file__}, "STEM_TLS_CLIENT_CERT is not"),
        ({"client_cert": __file__, "client_key": __file__}, "do not fit each other, or are none"),
        ({"allow_insecure": "perhaps"}, "STEM_TLS_ALLOW_INSECURE is 'perhaps'"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(secured: tuple[RedisServer, int], variables: dict[str, str], said: str) -> None:
    assert said in failure(f"rediss://localhost:{secured[1]}/0", **variables)


def test_a_certificate_of_ours_that_has_expired_is_named_before_anybody_is_asked(
    secured: tuple[RedisServer, int], authority: Authority
) -> None:
    url = f"rediss://localhost:{secured[1]}/0"
    cert, key = authority.issue("past", "DNS:client", days=-1)
    said = failure(url, client_cert=cert, client_key=key)
    assert f"STEM_TLS_CLIENT_CERT names {cert}, a certificate that expired on" in said
    past, _ = authority.issue("past-authority", "DNS:past\nbasicConstraints=CA:TRUE", days=-1)
    assert f"STEM_TLS_CA_CERT names {past}, where every certificate has expired" in failure(url, ca_cert=past)
