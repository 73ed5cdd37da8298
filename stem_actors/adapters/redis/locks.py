"""Locks in Redis: a hash each, with owner, fence and end. Fences come from one counter, so that they grow for every key."""

from __future__ import annotations

from stem_actors.adapters.redis.connection import Script, Server
from stem_actors.adapters.redis.keys import Keys
from stem_actors.ports import Lock

__all__ = ["RedisLocks"]


class RedisLocks:
    """A `LockStore`. Any thread."""

    def __init__(self, server: Server, namespace: str) -> None:
        self._server = server.attach()
        self._keys = Keys(namespace)
        self._is_closed = False

    def acquire(self, key: str, owner: str, ttl: float = 30.0) -> Lock | None:
        fence = self._ask("acquire", key, owner, "", ttl)
        return Lock(key, owner, fence) if fence else None

    def renew(self, lock: Lock, ttl: float = 30.0) -> bool:
        return bool(self._ask("renew", lock.key, lock.owner, str(lock.fence), ttl))

    def owner_of(self, key: str) -> str | None:
        owner, expires = self._server.command("HMGET", self._keys.lock(key), "owner", "expires")
        if owner is None or not (expires or b"").isdigit() or int(expires) / 1000 <= self._server.now():
            return None
        return str(owner.decode(errors="replace"))

    def release(self, lock: Lock) -> bool:
        return bool(self._ask("release", lock.key, lock.owner, str(lock.fence), 0.0))

    def _ask(self, verb: str, key: str, owner: str, fence: str, ttl: float) -> int:
        keys = [self._keys.lock(key), self._keys.fences]
        return int(self._server.run(Script.named("lock"), keys, [self._server.given, verb, owner, fence, round(ttl * 1000)]))

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._server.detach()
