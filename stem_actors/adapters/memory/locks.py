"""Locks in memory."""

from __future__ import annotations

from stem_actors.adapters.memory.space import Space
from stem_actors.ports import Lock

__all__ = ["MemoryLocks"]


class MemoryLocks:
    """A `LockStore`. Any thread."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def acquire(self, key: str, owner: str, ttl: float = 30.0) -> Lock | None:
        with self._space.changed:
            lock = self._live(key)
            if lock is None:
                lock = Lock(key, owner, self._space.next_number())
            elif lock.owner != owner:
                return None
            self._space.locks[key] = (lock, self._space.clock.now() + ttl)
            return lock

    def renew(self, lock: Lock, ttl: float = 30.0) -> bool:
        with self._space.changed:
            if self._live(lock.key) != lock:
                return False
            self._space.locks[lock.key] = (lock, self._space.clock.now() + ttl)
            return True

    def owner_of(self, key: str) -> str | None:
        with self._space.changed:
            lock = self._live(key)
            return None if lock is None else lock.owner

    def release(self, lock: Lock) -> bool:
        with self._space.changed:
            if self._live(lock.key) != lock:
                return False
            del self._space.locks[lock.key]
            return True

    def _live(self, key: str) -> Lock | None:
        lock, expires_at = self._space.locks.get(key, (None, 0.0))
        return lock if expires_at > self._space.clock.now() else None

    def close(self) -> None:
        """Nothing to close."""
