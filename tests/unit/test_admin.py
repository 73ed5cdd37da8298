"""The admin server, asked over a socket: pages, probes, and requests of bad clients."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Sequence

import pytest

from stem_actors.admin import AdminServer, Health, Pages
from stem_actors.errors import OperatorError


class Node:
    """What the pages show, to be changed by tests."""

    def __init__(self) -> None:
        self.reasons: dict[str, Sequence[str]] = {"a-1": [], "a-2": []}

    def readyz(self) -> Health:
        return Health(self.reasons)


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def server(node: Node) -> Iterator[AdminServer]:
    pages = Pages(
        lambda: Health({"node": []}), node.readyz, lambda accept: (f"for {accept}".encode(), "text/x"), lambda: [{"n": "é"}]
    )
    made = AdminServer("127.0.0.1", 0, pages)
    made.start()
    yield made
    made.close()


def ask(server: AdminServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(server.address, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def test_health_is_good_when_no_part_has_a_reason() -> None:
    assert Health({}).is_good
    assert Health({"a": [], "b": ()}).is_good
    assert not Health({"a": [], "b": ["draining"]}).is_good


def test_a_probe_that_is_well_is_200_and_ok(server: AdminServer) -> None:
    assert ask(server, "/livez") == (200, "text/plain; charset=utf-8", "ok\n")
    assert ask(server, "/readyz?verbose")[2] == "ok\na-1: ok\na-2: ok\n"


def test_a_probe_that_is_not_is_503_with_every_reason(server: AdminServer, node: Node) -> None:
    node.reasons["a-2"] = ["draining", "broker unreachable"]
    assert ask(server, "/readyz")[::2] == (503, "not ok\na-2: draining\na-2: broker unreachable\n")
    assert ask(server, "/readyz?verbose")[2] == "not ok\na-2: draining\na-2: broker unreachable\na-1: ok\n"
    status, content_type, body = ask(server, "/readyz", Accept="text/html, application/json;q=0.9")
    assert (status, content_type) == (503, "application/json")
    assert json.loads(body) == {"status": "error", "reasons": {"a-1": [], "a-2": ["draining", "broker unreachable"]}}


def test_metrics_come_in_the_format_that_was_asked_for(server: AdminServer) -> None:
    assert ask(server, "/metrics", Accept="application/openmetrics-text") == (200, "text/x", "for application/openmetrics-text")
    assert ask(server, "/metrics")[2] == "for "


def test_status_is_json(server: AdminServer) -> None:
    status, content_type, body = ask(server, "/status")
    assert (status, content_type, json.loads(body)) == (200, "application/json", [{"n": "é"}])


@pytest.mark.parametrize("path", ["/", "/livez/", "/metrics/x", "//", "/%2e%2e/etc/passwd"])
def test_other_paths_are_not_found(server: AdminServer, path: str) -> None:
    assert ask(server, path)[0] == 404


def test_head_answers_like_get_without_the_body(server: AdminServer, node: Node) -> None:
    node.reasons["a-1"] = ["starting"]
    assert ask(server, "/livez", "HEAD") == (200, "text/plain; charset=utf-8", "")
    assert ask(server, "/readyz", "HEAD")[::2] == (503, "")


def test_nothing_can_be_changed(server: AdminServer) -> None:
    assert ask(server, "/livez", "POST")[0] == 501


def test_a_client_that_says_nothing_holds_up_nobody(server: AdminServer) -> None:
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port))), socket.create_connection((host, int(port))) as rude:
        rude.sendall(b"GET /livez")
        assert ask(server, "/livez")[0] == 200


def test_a_client_that_hangs_up_leaves_no_trace(server: AdminServer, capfd: pytest.CaptureFixture[str]) -> None:
    host, _, port = server.address.rpartition(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # it resets
            rude.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert ask(server, "/livez")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_an_address_that_is_taken_names_the_flag(server: AdminServer) -> None:
    host, _, port = server.address.rpartition(":")
    with pytest.raises(OperatorError, match=rf"{port}.*--admin"):
        AdminServer(host, int(port), Pages(lambda: Health({}), lambda: Health({}), lambda _: (b"", ""), lambda: None))


def test_a_host_that_is_not_ours_names_the_flag() -> None:
    with pytest.raises(OperatorError, match="--admin"):
        AdminServer("192.0.2.1", 0, Pages(lambda: Health({}), lambda: Health({}), lambda _: (b"", ""), lambda: None))


def test_it_listens_on_ipv6_too() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python knows no IPv6")
    try:
        server = AdminServer("::1", 0, Pages(lambda: Health({}), lambda: Health({}), lambda _: (b"", ""), lambda: None))
    except OperatorError as error:
        if "Cannot assign" in str(error) or "not supported" in str(error):
            pytest.skip("this machine has no IPv6")
        raise
    server.start()
    try:
        assert server.address.startswith("[::1]:")
        assert ask(server, "/livez")[0] == 200
    finally:
        server.close()
