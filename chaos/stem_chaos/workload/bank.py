"""A bank: transfers between accounts that must each take effect once, however often their tasks are run.

The accounts are kept in an SQLite file of the run's own, apart from the broker. A task applies its transfer and notes the
transfer's key in one transaction; a key that is noted already is left alone. Some transfers are asked for twice: under the same
task id, which the broker refuses, and under another one, as a careless producer does, which the key has to catch.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from stem_actors import RetryPolicy
from stem_chaos.checker.finding import Checker, Finding, Validity, Violation
from stem_chaos.history import History, Operation, Phase, Verb, run_directory
from stem_chaos.workload.plain import Plain
from stem_chaos.workload.tasks import app
from stem_chaos.workload.workload import Enqueue, arrivals

__all__ = ["Bank", "check_bank", "transfer"]

_FILE = "bank.db"
_OPENING = 1000
_PATIENCE = 5.0  # seconds that a task waits for the file; one that was stopped in its transaction holds it
PROMISE = "Each transfer that was accepted took effect once, none that was not asked for did, and the total held."


@app.task(max_retries=100, retry_policy=RetryPolicy(default_delay=0.5))
def transfer(key: str, source: int, target: int, amount: int) -> bool:
    """Move an amount unless that was done before; whether it is done now."""
    with closing(_connect(run_directory())) as bank, bank:
        bank.execute("BEGIN IMMEDIATE")
        if bank.execute("SELECT 1 FROM transfer WHERE key = ?", (key,)).fetchone():
            return False
        bank.execute("INSERT INTO transfer VALUES (?, ?, ?, ?)", (key, source, target, amount))
        bank.execute("UPDATE account SET balance = balance - ? WHERE number = ?", (amount, source))
        bank.execute("UPDATE account SET balance = balance + ? WHERE number = ?", (amount, target))
    return True


def _connect(directory: Path) -> sqlite3.Connection:
    return sqlite3.connect(directory / _FILE, timeout=_PATIENCE, isolation_level=None)


@dataclass(frozen=True)
class Bank(Plain):
    """`accounts`: how many there are; the fewer, the more they are contended for."""

    accounts: int = 10

    name: ClassVar[str] = "bank"

    def prepare(self, directory: Path) -> None:
        with closing(_connect(directory)) as bank:
            bank.execute("PRAGMA journal_mode = WAL")
            bank.execute("CREATE TABLE account (number INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
            bank.execute("CREATE TABLE transfer (key TEXT, source INTEGER, target INTEGER, amount INTEGER)")
            bank.execute("CREATE INDEX transfer_by_key ON transfer (key)")  # not unique: twice has to be seen, not prevented
            bank.executemany("INSERT INTO account VALUES (?, ?)", [(number, _OPENING) for number in range(self.accounts)])

    def operations(self, chance: random.Random, duration: float) -> Iterator[Enqueue]:
        for number, at in enumerate(arrivals(chance, self.rate, duration)):
            first = self.operation(at, number, chance)
            yield first
            match chance.randrange(10):
                case 0:
                    yield first
                case 1:
                    yield Enqueue(at, first.task, first.args)
                case _:
                    pass

    def operation(self, at: float, number: int, chance: random.Random) -> Enqueue:
        source, target = chance.sample(range(self.accounts), 2)
        key = f"transfer-{number}"
        return Enqueue(at, transfer.name, [key, source, target, chance.randint(1, 100)], options={"task_id": key}, insists=True)

    def observe(self, directory: Path) -> Mapping[str, Any]:
        with closing(_connect(directory)) as bank:
            transfers = bank.execute("SELECT key, source, target, amount FROM transfer").fetchall()
            balances = dict(bank.execute("SELECT number, balance FROM account"))
        opening = {str(number): _OPENING for number in balances}
        at_the_end = {str(number): balance for number, balance in balances.items()}
        return {"transfers": transfers, "balances": at_the_end, "opening": opening}

    def checkers(self) -> Sequence[Checker]:
        return (check_bank,)


def check_bank(history: History) -> Finding:
    """Compare the accounts with what was asked for. Pure."""
    seen = next(
        (each for each in history.of(Verb.OBSERVE) if each.detail.get("workload") == Bank.name and not each.task_id), None
    )
    if seen is None:
        return Finding("bank", PROMISE, Validity.UNKNOWN, reason="the accounts were not looked at: the run did not get that far")
    applied = Counter(key for key, *_ in seen.detail["transfers"])
    accepted, asked = _transfers(history)
    unfinished = _not_ended(history)
    accepted = {task_id: key for task_id, key in accepted.items() if task_id not in unfinished}
    violations = [*_applied_wrongly(applied, accepted, asked), *_balances(seen.detail)]
    runs = sum(1 for each in history.of(Verb.START) if each.task_id in asked)
    figures = {"accepted": len(accepted), "applied": len(applied), "runs": runs, "total": sum(seen.detail["balances"].values())}
    return Finding("bank", PROMISE, Validity.INVALID if violations else Validity.VALID, violations, figures)


def _transfers(history: History) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """By task id, the keys of the transfers that were accepted; and of all that were asked for."""
    ours = [each for each in history.of(Verb.ENQUEUE) if each.detail.get("workload") == Bank.name and each.task_id]
    accepted = {each.task_id: _key(each) for each in ours if each.phase is Phase.OK and each.task_id}
    return accepted, {each.task_id: _key(each) for each in ours if each.task_id}


def _not_ended(history: History) -> set[str]:
    """Transfers whose tasks have not ended: whether they may not have is for the checker of losses to say."""
    last = {each.task_id: each.detail.get("state") for each in history.of(Verb.OBSERVE) if each.task_id is not None}
    return {task_id for task_id, state in last.items() if state not in ("succeeded", "failed", "cancelled")}


def _key(operation: Operation) -> str:
    return str(operation.detail["args"][0])


def _applied_wrongly(applied: Mapping[str, int], accepted: Mapping[str, str], asked: Mapping[str, str]) -> Iterator[Violation]:
    task_ids = {key: task_id for task_id, key in asked.items()}
    for key in sorted(set(accepted.values()) - set(applied)):
        yield Violation(f"{key} was accepted and never took effect", task_ids[key])
    for key, times in sorted(applied.items()):
        if key not in task_ids:
            yield Violation(f"{key} took effect and was never asked for")
        elif times > 1:
            yield Violation(f"{key} took effect {times} times", task_ids[key])


def _balances(seen: Mapping[str, Any]) -> Iterator[Violation]:
    wanted = Counter({account: int(balance) for account, balance in seen["opening"].items()})
    for _, source, target, amount in seen["transfers"]:
        wanted[str(source)] -= amount
        wanted[str(target)] += amount
    for account, balance in sorted(seen["balances"].items()):
        if balance != wanted[account]:
            yield Violation(f"account {account} has {balance}, and its transfers make {wanted[account]}")
    if sum(seen["balances"].values()) != sum(seen["opening"].values()):
        yield Violation(
            f"the total is {sum(seen['balances'].values())}, and was {sum(seen['opening'].values())} in the beginning"
        )
