"""The names of everything in the server. All keys of one queue share one hash tag, so that a Cluster keeps them together."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["LANES", "Keys", "expected_types"]

LANES = tuple(f"{kind}{level}" for level in range(9, -1, -1) for kind in "bp")
"""Streams of a queue in the order in which they are read: what came back before what is new, level by level."""

_OF_QUEUE = {
    "meta": "hash",
    "delayed": "zset",
    "dead": "zset",
    "dead:tasks": "hash",
    "waiters": "list",
    **dict.fromkeys(LANES, "stream"),
}
_OF_NAMESPACE = {
    "queues": "set",
    "names": "zset",
    "senders": "hash",
    "results": "stream",
    "fences": "string",
    "revocations": "hash",
    "revocations:order": "zset",
    "revocations:ends": "zset",
    "revocations:version": "string",
    "pauses": "hash",
    "heartbeats": "hash",
    "control:channels": "zset",
    "control:number": "string",
}
_HIDDEN = str.maketrans({"{": "%7B", "}": "%7D", "%": "%25"})


class Keys:
    """The keys and channels of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._prefix = prefix = f"{namespace}:"
        self.queues = f"{prefix}queues"
        self.names = f"{prefix}names"
        self.senders = f"{prefix}senders"
        self.results = f"{prefix}results"
        self.fences = f"{prefix}fences"
        self.revocations = f"{prefix}revocations"
        self.revocation_order = f"{prefix}revocations:order"
        self.revocation_ends = f"{prefix}revocations:ends"
        self.revocation_version = f"{prefix}revocations:version"
        self.pauses = f"{prefix}pauses"
        self.heartbeats = f"{prefix}heartbeats"
        self.control_channels = f"{prefix}control:channels"
        self.control_number = f"{prefix}control:number"
        self.waiters = f"{prefix}waiters"  # a channel: whoever waits for any result listens

    def queue(self, name: str) -> str:
        """The prefix of all keys of a queue."""
        return f"{self._prefix}{{{name.translate(_HIDDEN)}}}:"

    def meta(self, name: str) -> str:
        return f"{self._prefix}{{{name.translate(_HIDDEN)}}}:meta"

    def claim(self, name: str, key: str) -> str:
        """Who holds a key of a queue, as long as anybody does."""
        return f"{self.queue(name)}unique:{key}"

    def result(self, task_id: str) -> str:
        return f"{self._prefix}result:{task_id}"

    def done(self, task_id: str) -> str:
        """The channel on which a final record is announced."""
        return f"{self._prefix}done:{task_id}"

    def lock(self, key: str) -> str:
        return f"{self._prefix}lock:{key}"

    def rate(self, key: str) -> str:
        return f"{self._prefix}rate:{key}"

    def places(self, key: str) -> str:
        """Who holds the places of a concurrency limit."""
        return f"{self._prefix}places:{key}"

    def line(self, key: str) -> str:
        """Who waits for them."""
        return f"{self._prefix}line:{key}"

    def control(self, channel: str) -> str:
        """A control channel: the key of its stream, and the channel that tells of new entries."""
        return f"{self._prefix}control:of:{channel}"


def expected_types(keys: Iterable[str]) -> dict[str, str]:
    """The type that each key a script may touch should have. `keys` is what the script was given."""
    types: dict[str, str] = {}
    for key in keys:
        _, is_of_queue, name = key.rpartition("}:")
        if ":result:" in key:
            continue  # whatever it is, it is replaced
        if ":rate:" in key or ":line:" in key:
            types[key] = "string"
        elif ":places:" in key:
            types[key] = "zset"
        elif ":control:of:" in key:
            types[key] = "stream"
        elif ":lock:" in key:
            types[key] = "hash"
        elif is_of_queue and name == "meta":
            types |= {key[:-4] + suffix: kind for suffix, kind in _OF_QUEUE.items()}
        elif is_of_queue and name in _OF_QUEUE:
            types[key] = _OF_QUEUE[name]
        else:
            kind = next((kind for suffix, kind in _OF_NAMESPACE.items() if key.endswith(f":{suffix}")), None)
            if kind is not None:
                types[key] = kind
    return types
