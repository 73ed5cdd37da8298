"""How processes on one schema wake each other: `NOTIFY`, after the fact and not for every row. Only a hint: polling is the truth.

One thread with one connection both sends and listens. A publication does not carry its `NOTIFY` along: transactions that do are
committed one after another, in the whole server. It is sent when they are through, without waiting for the disk: at once while
there are few, else together with what else comes in the next milliseconds.
"""

from __future__ import annotations

import logging
import random
import select
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stem_actors.adapters.interrupt import Interrupt

__all__ = ["Ear", "Hints"]

_logger = logging.getLogger("stem.postgres")

PAUSE = 0.01
"""Seconds between two hints of one process that has many; what comes meanwhile goes with the second."""
BURST = 10
"""Hints that may follow one another without a pause, after a time with fewer."""
FIRST_RETRY, LAST_RETRY = 0.1, 5.0
HEARING_INTERVAL = 5.0
"""Seconds between two looks of one who waits and hears: a hint may be lost with the process that was to send it."""
STAYS = 30.0
"""Seconds after which the thread ends when nobody listens and there is nothing to say."""


class Ear:
    """What one waiter hears. `wait` is for one thread, `interrupt` for any."""

    def __init__(self, hints: Hints, topics: Sequence[str]) -> None:
        self._hints = hints
        self.topics = topics
        self._changed = threading.Condition()
        self._has_heard = False
        self._is_interrupted = False

    @property
    def has_heard(self) -> bool:
        """Whether there was a hint since `forget`."""
        return self._has_heard

    def forget(self) -> None:
        """Forget earlier hints; call before looking."""
        self._has_heard = False

    def wait(self, timeout: float) -> bool:
        """Wait for a hint or an interrupt; True when there was one."""
        with self._changed:
            if timeout > 0:
                self._changed.wait_for(lambda: self._has_heard or self._is_interrupted, timeout)
            return self._has_heard or self._is_interrupted

    def take_interrupt(self) -> bool:
        """Whether there was an interrupt since this was last asked."""
        with self._changed:
            was, self._is_interrupted = self._is_interrupted, False
        return was

    def interrupt(self) -> None:
        """Make the wait under way, or the next one, return at once."""
        with self._changed:
            self._is_interrupted = True
            self._changed.notify_all()

    def hear(self) -> None:
        with self._changed:
            self._has_heard = True
            self._changed.notify_all()

    def close(self) -> None:
        """Idempotent."""
        self._hints.remove(self)


class Hints:
    """Sends and hears hints for this process. Nothing here raises for a server that is away: then there are no hints.

    A topic is a short text without secrets; who listens to it hears whoever `notify`s it, in any process.
    """

    def __init__(self, connect: Callable[[], Any], channel: str, is_off: bool, poll_interval: float) -> None:
        self._connect = connect
        self._poll_interval = poll_interval
        self._is_listening = False
        self.channel = f"stem:{channel}"[:63]
        self._is_off = is_off
        self._lock = threading.Lock()
        self._ears: dict[str, list[Ear]] = defaultdict(list)
        self._pending: set[str] = set()
        self._thread: threading.Thread | None = None
        self._bell: Interrupt | None = None
        self._is_closed = False

    @property
    def patience(self) -> float:
        """Seconds after which one who waits looks by himself."""
        return max(self._poll_interval, HEARING_INTERVAL) if self._is_listening else self._poll_interval

    def listen(self, topics: Sequence[str]) -> Ear:
        """An ear that hears `notify` of these topics from about now on."""
        ear = Ear(self, topics)
        with self._lock:
            for topic in topics:
                self._ears[topic].append(ear)
        self._wake()
        return ear

    @contextmanager
    def listening(self, topic: str) -> Iterator[Ear]:
        """An ear for the time of a block."""
        ear = self.listen([topic])
        try:
            yield ear
        finally:
            ear.close()

    def remove(self, ear: Ear) -> None:
        with self._lock:
            for topic in ear.topics:
                if ear in self._ears.get(topic, ()):
                    self._ears[topic].remove(ear)
                    if not self._ears[topic]:
                        del self._ears[topic]

    def notify(self, topics: Iterable[str]) -> None:
        """Wake whoever listens, in this process now and elsewhere in a moment. Never blocks, never fails."""
        topics = list(topics)
        self._dispatch(topics)
        if not self._is_off:
            with self._lock:
                is_news = not self._pending.issuperset(topics)
                self._pending.update(topics)
            if is_news:
                self._wake()

    def close(self) -> None:
        """Say what is still to be said, and end. Idempotent."""
        with self._lock:
            self._is_closed = True
            thread, bell = self._thread, self._bell
        if bell is not None:
            bell.send()
        if thread is not None and thread is not threading.current_thread():
            thread.join(PAUSE + 5.0)
        for ear in {ear for ears in list(self._ears.values()) for ear in ears}:
            ear.interrupt()

    def _dispatch(self, topics: Iterable[str]) -> None:
        with self._lock:
            ears = [ear for topic in topics for ear in self._ears.get(topic, ())]
        for ear in ears:
            ear.hear()

    def _wake(self) -> None:
        if self._is_off:
            return
        with self._lock:
            if self._is_closed:
                return
            if self._thread is None:
                self._bell = Interrupt()
                self._thread = threading.Thread(target=self._run, args=(self._bell,), name="stem-hints", daemon=True)
                self._thread.start()
            bell = self._bell
        assert bell is not None
        bell.send()

    # ------------------------------------------------------------ the thread

    def _run(self, bell: Interrupt) -> None:
        failures = 0
        while True:
            connection = None
            try:
                connection = self._connect()
                failures = 0
                if self._serve(connection, bell):
                    break
            except Exception as error:
                if self._is_closed:
                    break
                failures += 1
                if failures == 1:
                    _logger.info("there are no hints for a while, and waiting tasks are found by polling: %s", error)
            finally:
                self._is_listening = False
                if connection is not None:
                    connection.close()
            self._dispatch(list(self._ears))  # who waits is to look oftener now
            pause = min(LAST_RETRY, FIRST_RETRY * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)
            if self._is_idle(bell, pause):
                break
        bell.close()

    def _is_idle(self, bell: Interrupt, pause: float) -> bool:
        """Wait a while before the next attempt; True when there is no need for one."""
        deadline = time.monotonic() + pause
        poll = select.poll()
        poll.register(bell, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0 and not self._is_closed:
            poll.poll(left * 1000)
            bell.take()
        return self._leaves(self._is_closed or not (self._pending or self._ears))

    def _leaves(self, is_wanted: bool) -> bool:
        """Whether the thread ends now: nobody can ask it for something afterwards."""
        with self._lock:
            if is_wanted and (self._is_closed or not (self._pending or self._ears)):
                self._thread = self._bell = None
                return True
        return False

    def _serve(self, connection: Any, bell: Interrupt) -> bool:
        """Send and hear until nobody needs it any more: True. Raises when the connection is lost."""
        own = connection.info.backend_pid
        connection.execute("SET synchronous_commit TO off")  # nothing is lost with a hint
        connection.add_notify_handler(lambda notice: None if notice.pid == own else self._dispatch([notice.payload]))
        poll = select.poll()
        poll.register(bell, select.POLLIN)
        poll.register(connection.pgconn.socket, select.POLLIN)
        owed_until, spoke_at = float("-inf"), time.monotonic()  # each hint has its pause, up to BURST of them on credit
        while True:
            if self._ears and not self._is_listening:
                connection.execute(f'LISTEN "{self.channel}"')
                self._is_listening = True
                self._dispatch(list(self._ears))  # what came before is not heard any more
            now = time.monotonic()
            quiet_for = owed_until - now - (BURST - 1) * PAUSE
            if self._pending and (quiet_for <= 0 or self._is_closed):
                self._send(connection)
                owed_until, spoke_at = max(owed_until, now) + PAUSE, now
                quiet_for = owed_until - now - (BURST - 1) * PAUSE
            if self._is_closed:
                return self._leaves(True)
            if not self._ears and now - spoke_at >= STAYS and self._leaves(True):
                return True
            wait = max(0.0, quiet_for) if self._pending else None if self._ears else STAYS
            poll.poll(None if wait is None else wait * 1000 + 0.5)
            bell.take()
            self._hear(connection)

    def _send(self, connection: Any) -> None:
        with self._lock:
            topics, self._pending = self._pending, set()
        try:
            connection.execute(
                "SELECT pg_notify(%s, topic) FROM unnest(%s::text[]) AS topic", (self.channel, sorted(topics))
            ).fetchall()
        except BaseException:
            with self._lock:
                self._pending |= topics
            raise

    def _hear(self, connection: Any) -> None:
        pgconn = connection.pgconn
        pgconn.consume_input()
        while (notice := pgconn.notifies()) is not None:
            if notice.be_pid != connection.info.backend_pid:
                self._dispatch([notice.extra.decode()])
