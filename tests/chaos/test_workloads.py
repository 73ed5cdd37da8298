"""Workloads: the same seed gives the same operations, files of operators are read, and the bank's judge sees what is wrong."""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stem_actors.errors import UsageError
from stem_chaos.checker.finding import Validity
from stem_chaos.generator import generate
from stem_chaos.history import DIRECTORY_VARIABLE, History, Operation, Phase, RunFacts, Verb
from stem_chaos.suites import load_suite, suite_names
from stem_chaos.workload.all import WORKLOADS, app
from stem_chaos.workload.bank import Bank, check_bank, transfer
from stem_chaos.workload.own import Own, read_workload

FACTS = RunFacts("smoke", "sqlite", 7, 3.0, 5, 2, 1, 2, started_at=0.0)


def operation(verb: Verb, phase: Phase = Phase.OK, task_id: str | None = None, pid: int = 1, **detail: Any) -> Operation:
    return Operation(verb, phase, 1, "test", pid, 1.0, 1.0, task_id, detail=detail)


def history(*operations: Operation) -> History:
    return History(FACTS, operations)


# ---------------------------------------------------------------- generating


@pytest.mark.parametrize("name", suite_names())
def test_a_seed_gives_the_same_operations_each_time_and_another_seed_others(name: str) -> None:
    def planned(seed: int) -> list[Any]:
        return list(itertools.islice(generate(load_suite(name).made_workloads(), seed, 60.0), 500))

    assert planned(3) == planned(3)
    assert planned(3) != planned(4)


@pytest.mark.parametrize("name", suite_names())
def test_operations_come_by_time_and_none_after_the_load(name: str) -> None:
    moments = [planned.at for planned in generate(load_suite(name).made_workloads(), 1, 20.0)]
    assert moments == sorted(moments)
    assert moments
    assert moments[0] >= 0
    assert moments[-1] < 20


def test_a_rate_is_kept_on_average() -> None:
    suite = load_suite("smoke")
    counted = Counter(planned.workload for planned in generate(suite.made_workloads(), 1, 1000.0))
    for name in ("short", "retries", "async"):
        assert counted[name] == pytest.approx(1000 * suite.workloads[name]["rate"], rel=0.15)


def test_a_workload_more_changes_nothing_of_the_others() -> None:
    short, bank = WORKLOADS["short"](rate=5), WORKLOADS["bank"](rate=5)
    alone = list(generate([short], 1, 10.0))
    together = [planned for planned in generate([bank, short], 1, 10.0) if planned.workload == "short"]
    assert alone == together


def test_every_task_of_every_workload_is_one_of_the_application() -> None:
    for suite in map(load_suite, suite_names()):
        planned = itertools.islice(generate(suite.made_workloads(), 1, 60.0), 1000)
        assert {each.operation.task for each in planned if app.registry.find(each.operation.task) is None} == set()


def test_there_is_no_suite_of_another_name() -> None:
    with pytest.raises(UsageError, match=r"no suite 'smok'; there are .*smoke"):
        load_suite("smok")


# ---------------------------------------------------------------- the operator's own


def written(folder: Path, text: str, name: str = "load.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def calls_of(own: Own, duration: float = 100.0) -> Counter[str]:
    return Counter(planned.operation.task for planned in generate([own], 1, duration))


def test_a_name_is_enough(tmp_path: Path) -> None:
    own = read_workload(written(tmp_path, '[[task]]\nname = "shop.send"\n'), "shop:app")
    assert own.app == "shop:app"
    assert calls_of(own)["shop.send"] == pytest.approx(1000, rel=0.1)


def test_weights_counts_and_the_rate_are_kept(tmp_path: Path) -> None:
    text = """
        rate = 20
        [[task]]
        name = "often"
        [[task]]
        name = "seldom"
        weight = 0.25
        [[task]]
        name = "thrice"
        count = 3
        args = [1, "two"]
        kwargs = { three = 3 }
        queue = "slow"
        priority = 9
        delay = 1.5
        max_retries = 0
        expect = "failed"
    """
    own = read_workload(written(tmp_path, text), "shop:app")
    counted = calls_of(own)
    assert counted["thrice"] == 3
    assert counted["often"] == pytest.approx(1600, rel=0.1)
    assert counted["seldom"] == pytest.approx(400, rel=0.2)
    (call, *_) = [each.operation for each in generate([own], 1, 1.0) if each.operation.task == "thrice"]
    assert call.args == [1, "two"]
    assert call.kwargs == {"three": 3}
    assert call.options == {"queue": "slow", "priority": 9, "countdown": 1.5, "max_retries": 0}
    assert call.expects == "failed"
    assert own.queues == {"slow"}


def test_json_lines_are_read_as_a_program_writes_them(tmp_path: Path) -> None:
    path = written(tmp_path, '{"name": "shop.send", "args": [1]}\n\n{"name": "shop.bill", "count": 2}\n', "load.jsonl")
    assert calls_of(read_workload(path, "shop:app"))["shop.bill"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no task"),
        ("rate = 0\n[[task]]\nname = 'a'", "rate is 0"),
        ("[[task]]\nargs = []", "task 1 has no name"),
        ("[[task]]\nname = 'a'\n[[task]]\nname = 'b'\nwait = 1", "task 2: 'wait' means nothing here"),
        ("[[task]]\nname = 'a'\nweight = -1", "weight is -1, and has to be a number above 0"),
        ("[[task]]\nname = 'a'\npriority = 10", "priority is 10"),
        ("[[task]]\nname = 'a'\nexpect = 'done'", "expect is 'done', and has to be one of succeeded"),
        ("tasks = 1", "'tasks' means nothing here"),
        ("task = [1]", "task 1 is 1; a task is a table"),
        ("[[task", "is no TOML"),
    ],
)
def test_a_file_that_describes_no_workload_is_refused_with_its_reason(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_workload(written(tmp_path, text), "shop:app")
    assert said in str(refused.value)
    assert "load.toml" in str(refused.value)


def test_a_workload_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.toml cannot be read"):
        read_workload(tmp_path / "nothing.toml", "shop:app")


# ---------------------------------------------------------------- the bank


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    Bank(1.0, accounts=3).prepare(tmp_path)
    return tmp_path


def asked(number: int, phase: Phase = Phase.OK, task_id: str | None = None) -> Operation:
    key = f"transfer-{number}"
    return operation(Verb.ENQUEUE, phase, task_id or key, workload="bank", args=[key, 0, 1, 10])


def judged(bank: Path, *operations: Operation) -> Mapping[str, str]:
    """What is wrong, by task."""
    seen = operation(Verb.OBSERVE, workload="bank", **Bank(1.0).observe(bank))
    finding = check_bank(history(*operations, seen))
    assert (finding.validity is Validity.INVALID) == bool(finding.violations)
    return {each.text: each.task_id or "" for each in finding.violations}


def change(bank: Path, statement: str) -> None:
    with closing(sqlite3.connect(bank / "bank.db")) as accounts, accounts:
        accounts.execute(statement)


def test_a_transfer_that_runs_twice_takes_effect_once(bank: Path) -> None:
    assert transfer("transfer-1", 0, 1, 10) is True
    assert transfer("transfer-1", 0, 1, 10) is False
    assert judged(bank, asked(1)) == {}
    assert Bank(1.0).observe(bank)["balances"] == {"0": 990, "1": 1010, "2": 1000}


def test_a_transfer_that_was_accepted_and_never_applied_is_found(bank: Path) -> None:
    assert judged(bank, asked(1)) == {"transfer-1 was accepted and never took effect": "transfer-1"}


def test_a_transfer_whose_task_never_ended_is_for_others_to_judge(bank: Path) -> None:
    assert judged(bank, asked(1), operation(Verb.OBSERVE, task_id="transfer-1", state="queued")) == {}


def test_a_transfer_whose_answer_was_lost_may_or_may_not_be_applied(bank: Path) -> None:
    transfer("transfer-1", 0, 1, 10)
    assert judged(bank, asked(1, Phase.INFO), asked(2, Phase.INFO)) == {}


def test_a_transfer_that_nobody_asked_for_is_found(bank: Path) -> None:
    transfer("transfer-1", 0, 1, 10)
    assert judged(bank) == {"transfer-1 took effect and was never asked for": ""}


def test_a_transfer_that_took_effect_twice_is_found(bank: Path) -> None:
    transfer("transfer-1", 0, 1, 10)
    change(bank, "INSERT INTO transfer SELECT * FROM transfer")
    assert "transfer-1 took effect 2 times" in judged(bank, asked(1))


def test_money_that_came_from_nowhere_is_found(bank: Path) -> None:
    change(bank, "UPDATE account SET balance = balance + 1 WHERE number = 2")
    assert set(judged(bank)) == {
        "account 2 has 1001, and its transfers make 1000",
        "the total is 3001, and was 3000 in the beginning",
    }


def test_accounts_that_nobody_looked_at_are_not_judged() -> None:
    assert check_bank(history(asked(1))).validity is Validity.UNKNOWN
