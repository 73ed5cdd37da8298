"""What `stem health` does to each store: a real round trip, in the namespace `NAMESPACE.health`, which no worker looks at.

Every name there is fixed, so that a check each second for years leaves no more behind than one. Two checks at once take turns.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from stem_actors.adapters import is_same_place, open_stores
from stem_actors.adapters.handshake import HandshakeFailed
from stem_actors.adapters.tls import Identity
from stem_actors.clock import SystemClock
from stem_actors.config import RESULTS_OFF, Settings, file_url, masked_url
from stem_actors.errors import BrokerUnavailable, ConfigError, OperatorError, StemError
from stem_actors.model.ids import new_task_id
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Ack
from stem_actors.model.rate import Limit, Rate
from stem_actors.model.record import Settlement, TaskRecord
from stem_actors.ports import Done, Message, Revocation, Stores
from stem_cli.server_facts import describe_postgres, describe_server, endpoint_of, identity_facts
from stem_cli.store_facts import describe, file_of

__all__ = ["Finding", "check_stores"]

_NAME = "health"
_KEPT = 60.0  # seconds
_MOST_APART = 1.0  # seconds between the server's clock and ours

_REMEDIES: tuple[tuple[type[StemError], str], ...] = (
    (
        BrokerUnavailable,
        "see whether the server runs and is reached from here; a file may be locked by a process that is stopped",
    ),
    (ConfigError, "compare the URL with `stem config show`"),
    (OperatorError, "look at the path or server that the message names: room, permissions, existence"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one role. `latency` of its round trip, in seconds; `hints` say what to do, one line each.

    `tls` is about a handshake that failed: whom we trusted, who we were, and what the server showed.
    """

    component: str
    is_well: bool
    message: str
    latency: float | None = None
    store: Mapping[str, object] = field(default_factory=dict)
    hints: Sequence[str] = ()
    tls: Mapping[str, object] = field(default_factory=dict)


def check_stores(settings: Settings, timeout: float, skip_backend: bool) -> list[Finding]:
    """A finding for each role and for the clock. Never raises for what is wrong with a store.

    Raises:
        ConfigError: a URL is not understood, or a TLS setting cannot be used.
    """
    roles = _roles(skip_backend or settings.results_are_off)
    unreachable = _missing_file(settings, roles)
    if unreachable is not None:
        return unreachable
    stores = open_stores(
        settings.broker_url,
        settings.result_backend_url,
        revoke_url=settings.revoke_store_url,
        rate_limit_url=settings.rate_limit_url,
        namespace=f"{settings.namespace}.{_NAME}",
        clock=SystemClock(),
        visibility_timeout=_KEPT,
        result_ttl=_KEPT,
        synchronous="normal" if settings.sqlite_synchronous == "normal" else "full",
        identity=Identity.from_settings(settings),
        accept_data_loss=True,  # said once, of the broker, in place of every role's refusal
    )
    findings: list[Finding] = []
    silent: set[str] = set()
    is_hanging = False
    urls = _urls(settings, roles)
    for endpoint in (endpoint_of(url, settings) for url in urls.values()):
        if endpoint is not None and endpoint.is_tls:
            endpoint.identity.context()
    for role in roles:
        place = stores.names[_PLACES.get(role, "broker")]
        if place in silent:
            findings.append(Finding(role, False, f"not asked, since {place} could not be talked to before"))
            continue
        finding = _timed(role, partial(_TRIPS[role], stores, 0.9 * timeout), timeout)
        is_silent = finding.message == _no_answer(timeout)
        is_hanging = is_hanging or is_silent
        if is_silent or finding.tls:
            silent.add(place)
        elif role in urls:
            finding = _with_facts(finding, urls[role], timeout, settings)
        findings.append(finding)
    if not is_hanging:  # else closing would wait for the one that does not answer
        stores.close()
    return findings


def _roles(without_backend: bool) -> list[str]:
    return [role for role in _TRIPS if not (role == "backend" and without_backend)]


def _urls(settings: Settings, roles: Sequence[str]) -> dict[str, str]:
    """The URL by role, of the broker and of what is kept elsewhere."""
    urls = {"broker": settings.broker_url}
    others = {
        "backend": settings.result_backend_url,
        "revocations": None if settings.revoke_store_url is None else file_url(settings.revoke_store_url),
        "rate_limits": settings.rate_limit_url,
    }
    for role, url in others.items():
        if url not in (None, RESULTS_OFF) and role in roles and not any(is_same_place(url, each) for each in urls.values()):
            urls[role] = url
    return urls


def _missing_file(settings: Settings, roles: Sequence[str]) -> list[Finding] | None:
    """Looking makes no database. None: there is one, or the store is no file."""
    for role, url in _urls(settings, roles).items():
        path = file_of(url)
        if path is not None and not path.exists():
            message = f"there is no database {path} ({masked_url(url)})"
            hint = "the first task that is enqueued makes it; or name another with --broker"
            if role == "revocations":
                hint = "the first worker that starts makes it; or name another in STEM_REVOKE_STORE_URL"
            return [Finding(role, False, message, hints=(hint,))]
    return None


def _timed(role: str, trip: Callable[[], str], timeout: float) -> Finding:
    """Make the trip on a thread of its own, and give up on it when it takes too long."""
    outcome: list[Finding] = []

    def travel() -> None:
        began = time.perf_counter()
        try:
            message = trip()
        except HandshakeFailed as error:
            outcome.append(_of_handshake(role, error))
        except StemError as error:
            hint = next((hint for kind, hint in _REMEDIES if isinstance(error, kind)), None)
            outcome.append(Finding(role, False, str(error), hints=[hint] if hint else []))
        except Exception as error:  # a store that is not what we take it for, in a thread nobody else watches
            outcome.append(Finding(role, False, f"{type(error).__name__}: {error}"))
        else:
            outcome.append(Finding(role, True, message, time.perf_counter() - began))

    thread = threading.Thread(target=travel, name=f"health-{role}", daemon=True)
    thread.start()
    thread.join(timeout)
    return outcome[0] if outcome else Finding(role, False, _no_answer(timeout), hints=[_REMEDIES[0][1]])


def _of_handshake(role: str, error: HandshakeFailed) -> Finding:
    seen = error.certificate
    shown = {
        "subject": seen.subject,
        "issuer": seen.issuer,
        "names": list(seen.names),
        "validFrom": seen.valid_from,
        "validTo": seen.valid_to,
    } if seen is not None else None  # fmt: skip
    tls = {"endpoint": error.endpoint, **identity_facts(error.identity), "error": error.check, "certificate": shown}
    message = f"TLS handshake failed for {error.endpoint}: {error.check}"
    whom = ", ".join(f"{name} {value}" for name, value in zip(_IDENTITY, identity_facts(error.identity).values(), strict=True))
    certificate = "the server showed no certificate that can be read" if seen is None else str(seen)
    return Finding(role, False, message, hints=[error.remedy, certificate, whom], tls=tls)


_IDENTITY = ("CA certificate", "client certificate", "allow insecure")


def _no_answer(timeout: float) -> str:
    return f"no answer within {timeout:g} s"


def _with_facts(finding: Finding, url: str, timeout: float, settings: Settings) -> Finding:
    endpoint = endpoint_of(url, settings)
    if endpoint is None:
        facts = describe_postgres(url, settings) or describe(url)
    else:
        facts = describe_server(endpoint, timeout, settings.accept_data_loss)
    message = f"{finding.message} {facts.text}" if finding.is_well else finding.message
    hints = [*finding.hints, *facts.hints]
    if facts.problem and finding.is_well:
        return replace(finding, is_well=False, message=f"{message}, but {facts.problem}", store=facts.values, hints=hints)
    return replace(finding, message=message, store=facts.values, hints=hints)


# ---------------------------------------------------------------- one trip for each role


def _broker(stores: Stores, timeout: float) -> str:
    """Publish, receive, settle."""
    broker = stores.broker
    with _turn(stores, timeout):
        leftovers = broker.held(_NAME)  # of a check that was killed
        broker.settle([Settlement(handout.lease, Ack()) for handout in leftovers])
        task_id = new_task_id()
        broker.publish(task_id, 1, [Message(task_id, _NAME, 0, b"health")])
        intake = broker.open_intake([_NAME], _NAME)
        try:
            deadline = time.monotonic() + timeout
            is_back = False
            while not is_back and time.monotonic() < deadline:
                handouts = intake.receive(10, 0.2)
                answers = broker.settle([Settlement(handout.lease, Ack()) for handout in handouts])
                if not all(isinstance(answer, Done) for answer in answers):
                    raise BrokerUnavailable("a task was handed out and its settlement refused")
                is_back = any(handout.id == task_id for handout in handouts)
        finally:
            intake.close()
        broker.sweep()  # forgets what expired of earlier checks
        if not is_back:
            raise BrokerUnavailable("a task was published and did not come back")
    return f"connected to {stores.names['broker']}: published, received and settled a task"


def _backend(stores: Stores, timeout: float) -> str:
    assert stores.results is not None
    payload = os.urandom(8)
    with _turn(stores, timeout):
        stored = stores.results.set_many([TaskRecord(_NAME, TaskState.SUCCEEDED, payload=payload)])
        found = stores.results.get(_NAME)
    if stored != [True] or found is None or found.payload != payload:
        raise BrokerUnavailable("a record was stored and another one was read")
    return f"connected to {stores.names['results']}: stored and read a record"


def _revocations(stores: Stores, timeout: float) -> str:
    now = stores.broker.now()
    (stored,) = stores.revocations.upsert_all([Revocation(_NAME, reason="a health check", issued_at=now, expires_at=now + _KEPT)])
    found = stores.revocations.list_since(stored.version - 1)
    stores.revocations.prune_expired()
    if not any(revocation.task_id == _NAME for revocation in found):
        raise BrokerUnavailable("a revocation was stored and is not listed")
    return f"connected to {stores.names['revocations']}: stored and read a revocation"


def _locks(stores: Stores, timeout: float) -> str:
    with _turn(stores, timeout):
        if stores.locks.owner_of(_NAME) is None:
            raise BrokerUnavailable("a lock was acquired and nobody holds it")
    return "acquired, saw and released a lock"


def _rate_limits(stores: Stores, timeout: float) -> str:
    once = Limit(_NAME, Rate(1, _KEPT))
    if stores.rate_limits.acquire([[once], [once]])[1] is None:
        raise BrokerUnavailable("a second token was given where there is one")
    return f"connected to {stores.names['rate_limits']}: counted one and refused another"


def _heartbeats(stores: Stores, timeout: float) -> str:
    stores.heartbeats.put_heartbeat(_NAME, {"worker_id": _NAME}, _KEPT)
    found = stores.heartbeats.list_heartbeats()
    if not any(heartbeat.get("worker_id") == _NAME for heartbeat in found):
        raise BrokerUnavailable("a heartbeat was sent and is not listed")
    return "sent and read a heartbeat"


def _control(stores: Stores, timeout: float) -> str:
    control, sent = stores.control, os.urandom(8)
    cursor = control.cursor([_NAME])
    control.send(_NAME, sent, _KEPT)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        messages, cursor = control.pull([_NAME], cursor, wait=0.2)
        if sent in messages:
            return "sent and received a command"
    raise BrokerUnavailable("a command was sent and did not arrive")


def _clock(stores: Stores, timeout: float) -> str:
    clock = SystemClock()
    before = clock.now()
    theirs = stores.broker.now()
    after = clock.now()
    apart = max(before - theirs, theirs - after, 0.0)
    if apart > _MOST_APART:
        raise OperatorError(f"the broker's clock and this host's are {apart:.1f} s apart; let both follow NTP")
    return f"{apart * 1000:.0f} ms apart from this host's"


_TRIPS: Mapping[str, Callable[[Stores, float], str]] = {
    "broker": _broker,
    "backend": _backend,
    "revocations": _revocations,
    "locks": _locks,
    "rate_limits": _rate_limits,
    "heartbeats": _heartbeats,
    "control": _control,
    "clock": _clock,
}
_PLACES = {"backend": "results", "revocations": "revocations", "rate_limits": "rate_limits"}
"""The name of a role's place, where it may be another than the broker's."""


@contextmanager
def _turn(stores: Stores, timeout: float) -> Iterator[None]:
    """Keep other health checks out for the time of a block."""
    owner, deadline = new_task_id(), time.monotonic() + timeout
    while (lock := stores.locks.acquire(_NAME, owner, timeout + 1.0)) is None:
        if time.monotonic() > deadline:
            raise BrokerUnavailable("another health check has not ended in time")
        time.sleep(0.02)
    try:
        yield
    finally:
        stores.locks.release(lock)
