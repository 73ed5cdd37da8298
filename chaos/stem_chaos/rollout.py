"""The rollout: replaces the nodes of a cluster one by one while everything goes on, by today's version if they are of another.

As long as there are old nodes, an old producer enqueues as well, so that messages of both versions are read by both.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from typing import Any

from stem_chaos.checker.leaving import REPLACE
from stem_chaos.client import ChaosClient
from stem_chaos.cluster import Cluster, Node, own_command
from stem_chaos.history import Phase, Recorder, Verb
from stem_chaos.upgrade import OldVersion
from stem_chaos.workload.short import double

__all__ = ["Rollout"]

_LEAVING = 60.0  # seconds for a node to end, beyond what it gives its tasks
_EVERY = 1.0  # seconds between two tasks of the old producer
_EXIT_USAGE = 64
OLD_PRODUCER = "old-producer"


class Rollout:
    """Replaces every node once, spread over `duration` seconds. `start` once; `stop` ends it wherever it is.

    `error`  what went wrong; `replaced` counts nodes.
    """

    def __init__(
        self, cluster: Cluster, client: ChaosClient, recorder: Recorder, duration: float, old: OldVersion | None
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._recorder = recorder
        self._duration = duration
        self._old = old
        self._is_stopped = threading.Event()
        self._is_over = threading.Event()  # no old nodes any more
        self._threads = [threading.Thread(target=self._replace_all, name="chaos-rollout", daemon=True)]
        if old is not None:
            self._threads.append(threading.Thread(target=self._produce, args=(old,), name="chaos-old-producer", daemon=True))
        self.replaced = 0
        self.error: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Whether every node has been replaced, or none will be any more."""
        return self._is_over.is_set()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Replace no more. Idempotent."""
        self._is_stopped.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_LEAVING)

    # ------------------------------------------------------------ nodes

    def _replace_all(self) -> None:
        nodes = list(self._cluster.nodes)
        pause = self._duration / (len(nodes) + 1)
        try:
            for node in nodes:
                if self._is_stopped.wait(pause):
                    return
                self._replace(node)
        except Exception as error:  # whatever it is, the run has to end and to say so
            self.error = error
        finally:
            self._is_over.set()

    def _replace(self, node: Node) -> None:
        """Not a fault, unless it is still there at its deadline and has to be killed."""
        command, environment = self._cluster.command(own_command()), self._environment(node)
        settings = self._cluster.app.settings
        workers = node.workers()
        held: dict[str, Any] = {
            "pids": [pid for each in workers for pid in (each.pid, *each.executors)],
            "incarnations": [each.incarnation for each in workers if each.incarnation],
        }
        call = self._recorder.invoke(Verb.FAULT, fault=REPLACE, target=node.name)
        patience = settings.drain_timeout + settings.soft_grace_period + _LEAVING
        code = node.restart(command, environment, patience)
        detail: dict[str, Any] = {"fault": REPLACE, "target": node.name, "exit": code, **(held if code < 0 else {})}
        self._recorder.write(Verb.FAULT, Phase.OK, call, **detail)
        self.replaced += 1

    def _environment(self, node: Node) -> dict[str, str]:
        """That of its successor: without what led an old node to this package, and with the probe that it may not have had."""
        if self._old is None:
            return node.environment
        laid_over = str(self._old.overlay)
        path = [each for each in node.environment.get("PYTHONPATH", "").split(os.pathsep) if each and each != laid_over]
        probe = {"STEM_CHAOS_PROBE": "stem_chaos.probe:instrument"}
        kept = {name: value for name, value in node.environment.items() if name != "PYTHONSAFEPATH"}
        return {**kept, "PYTHONPATH": os.pathsep.join(path), **probe}

    # ------------------------------------------------------------ the old producer

    def _produce(self, old: OldVersion) -> None:
        number = 0
        while not self._is_over.is_set() and not self._is_stopped.wait(_EVERY):
            number += 1
            self._enqueue(old, f"{OLD_PRODUCER}-{number}", number)

    def _enqueue(self, old: OldVersion, task_id: str, number: int) -> None:
        detail = {"workload": OLD_PRODUCER, "task": double.name, "args": [number], "expects": "succeeded", "queue": "default"}
        call = self._recorder.invoke(Verb.ENQUEUE, task_id=task_id, **detail)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("STEM_", "PYTHON"))}
        began = time.monotonic()
        try:
            code = old.enqueue(double.name, [number], task_id, {**environment, **self._cluster.settings(self._cluster.url)})
        except subprocess.TimeoutExpired:
            code = None
        phase = {0: Phase.OK, _EXIT_USAGE: Phase.FAIL}.get(-1 if code is None else code, Phase.INFO)
        self._recorder.write(
            Verb.ENQUEUE, phase, call, task_id=task_id, **detail, exit=code, took=round(time.monotonic() - began, 3)
        )
        self._client.adopt(task_id, phase)
