"""The proxy between a client and a server: what passes, what does not, and when."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from stem_chaos.link import Proxy

SOON = 10.0


class Server:
    """Answers each line with its own name and the line."""

    def __init__(self, name: bytes = b"", path: Path | None = None) -> None:
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
        self._name = name
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()
        return host, port

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(SOON)
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def hang_up(self) -> None:
        """Say goodbye on every connection, after what was said."""
        for connection in self._connections:
            connection.sendall(b"bye\n")
            connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection.makefile("rb") as lines:
            for line in lines:
                connection.sendall(self._name + line)


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server()) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.address) as proxy:
        yield proxy


class Client:
    def __init__(self, proxy: Proxy) -> None:
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=SOON)
        self._lines = self.socket.makefile("rb")

    def send(self, line: bytes) -> None:
        self.socket.sendall(line + b"\n")

    def receive(self) -> bytes:
        return self._lines.readline().rstrip(b"\n")

    def ask(self, line: bytes) -> bytes:
        self.send(line)
        return self.receive()

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Client]:
    with closing(Client(proxy)) as client:
        yield client


@contextmanager
def meanwhile(client: Client) -> Iterator[Future[bytes]]:
    """What the client receives next, in a thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(client.receive)


def test_what_both_sides_say_passes_in_order(client: Client) -> None:
    assert [client.ask(b"%d" % number) for number in range(100)] == [b"%d" % number for number in range(100)]


def test_megabytes_pass_unchanged_although_nobody_reads_them_at_once(proxy: Proxy, client: Client) -> None:
    line = bytes(range(11, 256)) * 20_000
    assert client.ask(line) == line


def test_it_leads_to_a_socket_of_a_path(tmp_path: Path) -> None:
    with closing(Server(path=tmp_path / "s")), Proxy(str(tmp_path / "s")) as proxy, closing(Client(proxy)) as client:
        assert client.ask(b"a") == b"a"


def test_the_end_of_one_side_reaches_the_other_after_what_was_said(server: Server, client: Client) -> None:
    assert client.ask(b"a") == b"a"
    server.hang_up()
    assert client.receive() == b"bye"
    assert client.receive() == b""


def test_a_server_that_is_not_there_is_a_connection_that_ends() -> None:
    server = Server()
    with Proxy(server.address) as proxy:
        server.close()
        with pytest.raises(ConnectionResetError), closing(Client(proxy)) as client:
            client.receive()


def test_a_reset_ends_every_connection_and_lets_new_ones_in(proxy: Proxy, client: Client) -> None:
    assert client.ask(b"a") == b"a"
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.receive()
    with closing(Client(proxy)) as another:
        assert another.ask(b"b") == b"b"


def test_a_cut_ends_every_connection_and_each_new_one_until_it_is_healed(proxy: Proxy, client: Client) -> None:
    assert client.ask(b"a") == b"a"
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.receive()
    with pytest.raises(ConnectionError), closing(Client(proxy)) as another:
        another.ask(b"b")
    proxy.heal()
    with closing(Client(proxy)) as another:
        assert another.ask(b"b") == b"b"


def test_a_black_hole_keeps_connections_and_what_was_said_until_it_is_healed(proxy: Proxy, client: Client) -> None:
    assert client.ask(b"a") == b"a"
    proxy.blackhole()
    client.send(b"b")
    client.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    client.socket.settimeout(SOON)
    with closing(Client(proxy)) as another:  # the cable is out behind the proxy
        another.send(b"c")
        proxy.heal()
        assert another.receive() == b"c"
    assert client.socket.recv(10) == b"b\n"


def test_a_dropped_answer_resets_the_connection_after_the_server_has_heard(proxy: Proxy, client: Client) -> None:
    assert client.ask(b"a") == b"a"
    proxy.drop_answers()
    client.send(b"b")
    with pytest.raises(ConnectionResetError):
        client.receive()


@pytest.mark.parametrize("seconds", [0.05, 0.2])
def test_a_delay_holds_everything_back_in_both_directions(proxy: Proxy, client: Client, seconds: float) -> None:
    proxy.delay(seconds)
    began = time.monotonic()
    assert client.ask(b"a") == b"a"
    assert time.monotonic() - began >= 2 * seconds
    proxy.heal()
    began = time.monotonic()
    assert client.ask(b"b") == b"b"
    assert time.monotonic() - began < 2 * seconds


def test_what_is_said_while_there_is_a_delay_stays_in_order(proxy: Proxy, client: Client) -> None:
    client.ask(b"a")
    proxy.delay(0.3)
    client.send(b"first")
    proxy.delay(0.0)
    client.send(b"second")
    assert [client.receive(), client.receive()] == [b"first", b"second"]


def test_a_narrow_link_lets_so_many_bytes_pass_in_a_second(proxy: Proxy, client: Client) -> None:
    proxy.throttle(50_000)
    began = time.monotonic()
    assert client.ask(b"x" * 9_999) == b"x" * 9_999  # 20,000 bytes there and back
    assert 0.3 < time.monotonic() - began < 5.0


def test_a_retargeted_link_leads_new_connections_elsewhere_and_resets_the_old(proxy: Proxy, client: Client) -> None:
    assert client.ask(b"a") == b"a"
    with closing(Server(b"other ")) as other:
        proxy.retarget(other.address)
        with pytest.raises(ConnectionResetError):
            client.receive()
        with closing(Client(proxy)) as another:
            assert another.ask(b"b") == b"other b"


def test_closing_ends_the_connections_and_can_be_repeated(server: Server) -> None:
    proxy = Proxy(server.address)
    with closing(Client(proxy)) as client:
        assert client.ask(b"a") == b"a"
        with meanwhile(client) as received:
            proxy.close()
            with pytest.raises(ConnectionResetError):
                received.result(SOON)
    proxy.close()


def test_an_idle_link_uses_no_processor_time_whatever_ails_it(server: Server) -> None:
    with Proxy(server.address) as proxy, closing(Client(proxy)) as client:
        client.ask(b"a")
        proxy.blackhole()
        client.send(b"waits")
        before = time.process_time()
        threading.Event().wait(0.3)  # nothing is to happen in this time
        assert time.process_time() - before < 0.1
