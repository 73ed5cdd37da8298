"""Which URL opens what, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from stem_actors.adapters import open_stores
from stem_actors.errors import ConfigError
from stem_actors.ports import Revocation
from stem_actors.testing import ManualClock
from tests.contract.fabric import message, publish, take

CLOCK = ManualClock()


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = open_stores("sqlite:///stem.db", clock=CLOCK)
    publish(relative.broker, "a")
    monkeypatch.chdir("/")
    publish(relative.broker, "b")
    absolute = open_stores(f"file:///{tmp_path}/stem.db", clock=CLOCK)
    assert len(take(absolute.broker)) == 2
    assert relative.names == dict.fromkeys(("broker", "results", "revocations", "rate_limits"), f"sqlite:///{tmp_path}/stem.db")
    relative.close()
    absolute.close()


@pytest.mark.parametrize("url", ["memory:", "memory://", "MEMORY:"])
def test_every_memory_url_opens_stores_of_its_own(url: str) -> None:
    one, other = open_stores(url, clock=CLOCK), open_stores(url, clock=CLOCK)
    publish(one.broker, message("a"))
    assert take(other.broker) == []
    assert one.settles_results


def test_results_are_the_brokers_unless_they_have_a_url(tmp_path: Path) -> None:
    broker_url, other_url = f"sqlite:///{tmp_path}/stem.db", f"sqlite:///{tmp_path}/results.db"
    for backend_url, settles in ((None, True), (broker_url, True), (other_url, False), ("memory:", False)):
        stores = open_stores(broker_url, backend_url, clock=CLOCK)
        assert stores.settles_results is settles
        assert stores.results is not None
        assert stores.results.get("a") is None
        stores.close()


def test_results_can_be_switched_off(tmp_path: Path) -> None:
    stores = open_stores(f"sqlite:///{tmp_path}/stem.db", "none", clock=CLOCK)
    assert stores.results is None
    assert not stores.settles_results
    stores.close()


def test_revocations_are_kept_with_the_results_unless_they_have_a_place_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    places = {
        (None, None): "stem.db",
        ("none", None): "stem.db",
        ("memory:", None): "stem.db",
        ("sqlite:///results.db", None): "results.db",
        ("sqlite:///results.db", "sqlite:///own.db"): "own.db",
        (None, "file:///own.db"): "own.db",
        (None, "own.db"): "own.db",
        (None, f"{tmp_path}/own 1%.db"): "own 1%.db",
        (None, f"{tmp_path}/kept/"): "kept/revokes.stem",
        (None, "kept/"): "kept/revokes.stem",
    }
    for (backend_url, revoke_url), name in places.items():
        stores = open_stores("sqlite:///stem.db", backend_url, revoke_url=revoke_url, clock=CLOCK)
        assert stores.names["revocations"] == f"sqlite:///{tmp_path}/{name}"
        (stored,) = stores.revocations.upsert_all([Revocation("a")])
        again = open_stores(f"sqlite:///{tmp_path}/{name}".replace("%", "%25"), clock=CLOCK)
        assert again.revocations.list_since() == [stored]
        again.close()
        stores.close()
        (tmp_path / name).unlink()


def test_nothing_is_created_before_it_is_used(tmp_path: Path) -> None:
    open_stores(f"sqlite:///{tmp_path}/stem.db", clock=CLOCK).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["carrier-pigeon://user:secret@host/1?password=secret", "stem.db", "", "http://:secret@host"])
def test_an_unknown_scheme_is_refused_naming_those_accepted_and_no_secret(url: str) -> None:
    with pytest.raises(ConfigError, match="memory:, sqlite:, file:") as caught:
        open_stores(url, clock=CLOCK)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:", "sqlite:stem.db", "sqlite://stem.db", "sqlite:///", "sqlite:///stem.db?mode=ro"])
def test_a_sqlite_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite: URL"):
        open_stores(url, clock=CLOCK)
