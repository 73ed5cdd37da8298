"""What is made of a Redis server's answers to INFO and TIME."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from stem_actors.adapters.redis.server import ServerReport, examine

NOW = 1_000_000.0
WELL = {
    "redis_version": "7.2.4",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "maxmemory_policy": "noeviction",
    "maxmemory": "1000000",
    "used_memory": "1000",
    "role": "master",
}


class Answers:
    """A connection to a server that says this of itself; None: it refuses to."""

    def __init__(self, facts: dict[str, str] | None, clock: float) -> None:
        info = "# Server\r\n" + "\r\n".join(f"{name}:{value}" for name, value in (facts or {}).items())
        self._answers: list[object] = [info.encode(), [b"%d" % clock, b"500000"]]
        self._refuses = facts is None

    def send_command(self, *_words: str, check_health: bool) -> None:
        pass

    def read_response(self) -> object:
        if self._refuses:
            raise ResponseError("NOPERM")
        return self._answers.pop(0)


def report(facts: dict[str, str] | None = None, clock: float = NOW) -> ServerReport:
    found = examine(Answers({**WELL, **(facts or {})}, clock), NOW)
    assert found is not None
    return found


def test_a_server_that_is_set_up_well_has_no_notes() -> None:
    found = report()
    assert (found.version, found.persistence, found.memory_used, found.memory_left) == ((7, 2, 4), "aof", 1000, 999_000)
    assert found.clock_offset == 0.5
    assert found.notes == []
    assert not found.can_drop_tasks
    assert "Redis 7.2.4, persistence aof, eviction noeviction" in str(found)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"redis_version": "6.2.1"}, "needs 7.0 or newer"),
        ({"aof_enabled": "0"}, "set appendonly yes"),
        ({"maxmemory_policy": "allkeys-lru"}, "drops tasks; set maxmemory-policy noeviction"),
        ({"maxmemory_policy": "volatile-ttl"}, "drops results; set maxmemory-policy noeviction"),
        ({"aof_last_write_status": "err"}, "free disk space"),
        ({"rdb_last_bgsave_status": "err"}, "free disk space"),
        ({"used_memory": "950000"}, "raise maxmemory"),
        ({"role": "slave"}, "name the primary"),
    ],
)
def test_each_thing_to_change_is_one_note_with_its_remedy(facts: dict[str, str], said: str) -> None:
    (note,) = report(facts).notes
    assert said in note
    assert "\n" not in note


def test_a_clock_that_is_off_is_noted() -> None:
    (note,) = report(clock=NOW - 100).notes
    assert "NTP" in note


@pytest.mark.parametrize(
    ("policy", "limit", "can_drop"),
    [
        ("allkeys-lru", "1000000", True),
        ("allkeys-lru", "0", False),
        ("volatile-lru", "1000000", False),
        ("noeviction", "1", False),
    ],
)
def test_tasks_can_be_dropped_where_any_key_may_be_and_memory_has_a_limit(policy: str, limit: str, can_drop: bool) -> None:
    assert report({"maxmemory_policy": policy, "maxmemory": limit}).can_drop_tasks is can_drop


def test_a_server_that_does_not_say_has_no_report() -> None:
    assert examine(Answers(None, NOW), NOW) is None
