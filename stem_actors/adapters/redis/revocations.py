"""Revocations in Redis. Versions follow the server's clock, so that they go on growing after it has lost its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgpack

from stem_actors.adapters.redis.connection import Script, Server
from stem_actors.adapters.redis.keys import Keys
from stem_actors.ports import Revocation

__all__ = ["RedisRevocations"]

MOST_AT_ONCE = 300


class RedisRevocations:
    """A `RevokeStore`. Any thread."""

    def __init__(self, server: Server, namespace: str) -> None:
        self._server = server.attach()
        self._keys = Keys(namespace)
        self._is_closed = False

    def upsert_all(self, revocations: Sequence[Revocation]) -> list[Revocation]:
        keys = self._keys
        names = [keys.revocations, keys.revocation_order, keys.revocation_ends, keys.revocation_version]
        newest: dict[str, Revocation] = {}
        for start in range(0, len(revocations), MOST_AT_ONCE):
            some = revocations[start : start + MOST_AT_ONCE]
            arguments: list[str | bytes | int] = [self._server.given]
            for each in some:
                rest = msgpack.packb((each.terminate, each.reason, each.requested_by, each.issued_at, each.expires_at))
                arguments += (each.task_id, "" if each.expires_at is None else round(each.expires_at * 1000), rest)
            versions = self._server.run(Script.named("revoke"), names, arguments)
            for each, version in zip(some, versions, strict=True):
                newest[each.task_id] = replace(each, version=version)
        return [newest[each.task_id] for each in revocations]

    def list_since(self, version: int = 0, limit: int = 1000) -> list[Revocation]:
        found: list[Revocation] = []
        now = self._server.now()
        while len(found) < limit:
            page = self._server.command(
                "ZRANGEBYSCORE", self._keys.revocation_order, f"({version}", "+inf", "WITHSCORES", "LIMIT", 0, min(limit, 1000)
            )
            if not page:
                break
            version = int(float(page[-1]))
            values = self._server.command("HMGET", self._keys.revocations, *page[::2])
            read = (_revocation(name, value) for name, value in zip(page[::2], values, strict=True))
            found += [each for each in read if each is not None and (each.expires_at is None or each.expires_at > now)]
        return found[: max(0, limit)]

    def prune_expired(self) -> int:
        keys = [self._keys.revocations, self._keys.revocation_order, self._keys.revocation_ends]
        total = 0
        while removed := self._server.run(Script.named("unrevoke"), keys, [self._server.given]):
            total += removed
        return total

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._server.detach()


def _revocation(name: bytes, value: bytes | None) -> Revocation | None:
    """None for what is gone meanwhile, or none of ours."""
    try:
        if value is None:
            return None
        terminate, reason, requested_by, issued_at, expires_at = msgpack.unpackb(value[16:])
        return Revocation(name.decode(), terminate, reason, requested_by, issued_at, expires_at, int(value[:16]))
    except (ValueError, TypeError):
        return None
