"""The script that makes an authority and certificates: what it makes is trusted, and what was there is not lost."""

from __future__ import annotations

import os
import shutil
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from stem_actors.adapters.tls import certificate_fields

SCRIPT = Path(__file__).parents[2] / "scripts/security/generate_tls_assets.sh"
FILES = {f"{name}.{end}" for name in ("ca", "server", "client") for end in ("crt", "key")}

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with")


def make(folder: Path, names: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "KEY_BITS": "2048", **variables}
    command = [str(SCRIPT), str(folder), names, *options]
    return subprocess.run(command, env=environ, text=True, capture_output=True, check=False, timeout=50)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "certs"
    done = make(folder, "stem.local,redis,api.localhost,127.0.0.1,::1", CLIENT_CN="billing", DAYS="3")
    assert done.returncode == 0, done.stderr
    return folder


def shake_hands(certs: Path, name: str) -> ssl.SSLObject:
    """The server's side of a connection on which both sides have to show a certificate, made in memory."""
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.verify_mode = ssl.CERT_REQUIRED
    for context, who in ((ours, "client"), (theirs, "server")):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(certs / "ca.crt")
        context.load_cert_chain(certs / f"{who}.crt", certs / f"{who}.key")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ours.wrap_bio(back, there, server_hostname=name)
    server = theirs.wrap_bio(there, back, server_side=True)
    waiting = [client, server]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
    return server


@pytest.mark.parametrize("name", ["stem.local", "redis", "api.localhost", "127.0.0.1", "::1"])
def test_a_server_is_trusted_by_each_of_its_names_and_knows_its_client(certs: Path, name: str) -> None:
    shown = shake_hands(certs, name).getpeercert()
    assert shown is not None
    assert shown["subject"] == ((("commonName", "billing"),),)


def test_another_name_is_not_trusted(certs: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="elsewhere"):
        shake_hands(certs, "elsewhere.local")


def test_the_first_name_is_the_common_one_and_keys_are_for_their_owner(certs: Path) -> None:
    assert {file.name for file in certs.iterdir()} == FILES
    fields = certificate_fields(str(certs / "server.crt"))
    assert fields["subject"] == ((("commonName", "stem.local"),),)
    for file in certs.glob("*.key"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_there_is_written_over_when_that_is_asked_for_only(certs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(certs, tmp_path / "certs"))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    refused = make(folder, "localhost")
    assert (refused.returncode, "ca.crt is there already" in refused.stderr) == (73, True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert make(folder, "localhost", "--force").returncode == 0
    assert {file.name for file in folder.iterdir()} == FILES
    assert all((folder / name).read_bytes() != content for name, content in before.items())


@pytest.mark.parametrize("names", ["", ",", "two words", "a,-b", "a;b"])
def test_what_is_no_name_is_refused_and_nothing_is_made(names: str, tmp_path: Path) -> None:
    refused = make(tmp_path / "certs", names)
    assert refused.returncode == 64
    assert refused.stderr.startswith("generate_tls_assets: ")
    assert not (tmp_path / "certs").exists()


def test_what_openssl_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    refused = make(tmp_path / "certs", "localhost", DAYS="ten")
    assert refused.returncode == 70
    assert "openssl does not make them" in refused.stderr
    assert list((tmp_path / "certs").iterdir()) == []
