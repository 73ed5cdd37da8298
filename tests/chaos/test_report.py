"""Reports say what was found, in every form, and a page holds whatever a history holds without being broken by it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stem_chaos.checker.all import check_all
from stem_chaos.checker.finding import Finding, Validity, Violation
from stem_chaos.history import History
from stem_chaos.report.document import MOST_TASKS, as_document, write_json
from stem_chaos.report.evidence import evidence_of
from stem_chaos.report.facts import facts_of, replay_command, verdict_of
from stem_chaos.report.junit import write_junit
from stem_chaos.report.page import write_page
from stem_chaos.report.terminal import print_verdict
from stem_chaos.report.timeline import read_timeline
from stem_cli.output import Output
from tests.chaos.histories import FACTS, Story

NASTY = "<script>alert(1)</script> & \"quotes' \x00 \ud800 ]]>"


def broken_story() -> Story:
    """A task that is settled by a stale holder, and one that is lost, beside a fault and a good one."""
    story = Story(workloads={"short": {"rate": 5}})
    story.life("good", 0.0)
    story.enqueue("stale", 1.0)
    story.deliver("stale", 1.5, worker="w1")
    story.start("stale", 1.6)
    story.fault("pause-worker", 2.0, 14.0, incarnations=["w1"])
    story.deliver("stale", 13.0, count=2, worker="w2")
    story.settle("stale", 15.0, count=1, worker="w1")
    story.enqueue("lost", 3.0)
    story.observe("lost", 30.0, "queued")
    return story


@pytest.fixture
def judged() -> tuple[list[Finding], History]:
    history = broken_story().history()
    return check_all(history), history


# ---------------------------------------------------------------- what all of them say


def test_one_broken_promise_breaks_the_verdict_and_an_open_one_qualifies_it() -> None:
    held, broken, unknown = (
        Finding("name", "Promise.", validity) for validity in (Validity.VALID, Validity.INVALID, Validity.UNKNOWN)
    )
    assert verdict_of([held]) == "held"
    assert verdict_of([held, unknown, broken]) == "broken"
    assert verdict_of([held, unknown]) == "held as far as is known"


def test_the_command_that_repeats_a_run_names_what_cannot_be_known_from_the_suite() -> None:
    facts = replace(FACTS, suite="smoke", broker="redis", seed=42)
    assert replay_command(facts) == "stem-chaos run smoke --broker redis --replay 42"
    facts = replace(
        facts,
        schedule="kill-node/1s, freeze-broker/5s:1s",
        workloads={"own": {}},
        versions={"old": "0.1 (a.whl)", "from": "a.whl"},
    )
    assert replay_command(facts) == (
        "stem-chaos run smoke --broker redis --replay 42 --app MODULE:APP --workload FILE --from a.whl "
        "--schedule kill-node/1s,freeze-broker/5s:1s"
    )


def test_facts_tell_what_the_run_was() -> None:
    told = facts_of(broken_story().history())
    assert told["seed"] == "7"
    assert told["cluster"] == "2 nodes × 1 worker × 2 executors"
    assert (told["faults"], told["lasted"]) == ("1", "30s")


def test_the_evidence_is_a_tasks_history_with_the_faults_that_hit_its_holders() -> None:
    story = broken_story()
    story.fault("kill-worker", 14.5, incarnations=["w3"])
    rows = evidence_of(story.history(), ["stale"])["stale"]
    assert [row.what for row in rows] == [
        "enqueue invoke",
        "enqueue ok",
        "deliver ok",
        "start ok",
        "pause-worker",
        "deliver ok",
        "settle invoke",
        "settle ok",
    ]
    assert [row.is_fault for row in rows].count(True) == 1
    assert rows[-1].detail == "ack, succeeded"
    assert (rows[5].delivery, rows[5].process) == (2, "w2")


def test_the_timeline_counts_by_the_second() -> None:
    story = Story()
    for number in range(10):
        story.life(f"t{number}", 0.05 * number)
    story.life("late", 5.0)
    story.fault("kill-node", 2.0, 3.0)
    timeline = read_timeline(story.history())
    assert timeline.step == 1.0
    assert list(timeline.ended) == [10.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert timeline.p50[0] == pytest.approx(0.011)
    assert timeline.p99[1] is None
    assert [(band.name, band.begin, band.end) for band in timeline.bands] == [("kill-node", 2.0, 3.0)]


def test_a_long_run_has_no_more_points_than_can_be_seen() -> None:
    story = Story()
    story.life("t1", 0.0)
    story.life("t2", 10 * 3600.0)
    timeline = read_timeline(story.history())
    assert len(timeline.ended) <= 241
    assert sum(timeline.ended) * timeline.step == pytest.approx(2.0)


# ---------------------------------------------------------------- JSON and JUnit


def test_the_document_holds_all_that_was_found(judged: tuple[list[Finding], History], tmp_path: Path) -> None:
    write_json(*judged, tmp_path / "report.json")
    document = json.loads((tmp_path / "report.json").read_text())
    findings = {each["checker"]: each for each in document["findings"]}
    assert document["verdict"] == "broken"
    assert document["replay"] == "stem-chaos run hand-written --broker memory --replay 7"
    assert findings["fencing"]["validity"] == "invalid"
    assert findings["fencing"]["violations"][0]["task_id"] == "stale"
    assert findings["fencing"]["violations"][0]["seconds"] == 15.0
    assert findings["baseline"]["reason"] == "nothing was counted before the first fault"
    assert {"stale", "lost"} <= document["tasks"].keys()
    assert document["facts"]["seed"] == 7


def test_only_so_many_tasks_are_told_in_full() -> None:
    story = Story()
    for number in range(MOST_TASKS + 5):
        story.enqueue(f"t{number}", number)
        story.observe(f"t{number}", 1000.0, "queued")
    history = story.history()
    assert len(as_document(check_all(history), history)["tasks"]) == MOST_TASKS


def test_junit_has_a_case_for_each_checker(judged: tuple[list[Finding], History], tmp_path: Path) -> None:
    write_junit(*judged, tmp_path / "report.xml")
    (suite,) = ET.parse(tmp_path / "report.xml").getroot()
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert len(cases) == int(suite.get("tests", 0)) == len(judged[0])
    failure, skipped = cases["fencing"].find("failure"), cases["baseline"].find("skipped")
    assert failure is not None
    assert "15.000 s: task stale w1 settled delivery 1" in str(failure.text)
    assert skipped is not None
    assert skipped.get("message") == "nothing was counted before the first fault"
    assert cases["delays"].find("failure") is None
    assert int(suite.get("failures", 0)) == sum(finding.validity is Validity.INVALID for finding in judged[0])
    assert {each.get("name"): each.get("value") for each in suite.iter("property")}["seed"] == "7"


def nasty_findings() -> list[Finding]:
    violation = Violation(NASTY, NASTY, 1.0)
    return [
        Finding(NASTY, NASTY, Validity.INVALID, [violation], {NASTY: NASTY}),
        Finding("b", NASTY, Validity.UNKNOWN, reason=NASTY),
    ]


def nasty_history() -> History:
    story = Story(suite=NASTY, broker=NASTY, schedule=NASTY, versions={NASTY: NASTY})
    story.enqueue(NASTY, 0.0, args=[NASTY])
    story.settle(NASTY, 1.0, verdict=NASTY)
    story.fault(NASTY, 0.5, everything=True)
    return story.history()


def test_junit_is_well_formed_whatever_it_has_to_say(tmp_path: Path) -> None:
    write_junit(nasty_findings(), nasty_history(), tmp_path / "report.xml")
    assert len(list(ET.parse(tmp_path / "report.xml").getroot().iter("testcase"))) == 2


# ---------------------------------------------------------------- the page


class Reader(HTMLParser):
    """Elements and attributes of a page; complains about what is closed in the wrong order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(findings: list[Finding], history: History, directory: Path) -> str:
    write_page(findings, history, directory / "report.html")
    return (directory / "report.html").read_text(encoding="utf-8")


def test_the_page_shows_verdict_faults_and_what_happened(judged: tuple[list[Finding], History], tmp_path: Path) -> None:
    page = Reader(page_of(*judged, tmp_path))
    text = " ".join(page.text)
    assert "broken" in text
    assert "stem-chaos run hand-written --broker memory --replay 7" in text
    assert "w1 settled delivery 1 2.000 s after w2 had received delivery 2" in text
    assert "pause-worker: pause-worker, 2.00 s to 14.00 s" in text
    classes = {attributes.get("class") for _, attributes in page.elements}
    assert {"fault", "shade", "breach", "ended line", "hit"} <= classes
    assert ("a", {"href": "#task-stale"}) in page.elements
    assert {"task-stale", "task-lost"} <= {attributes.get("id") for _, attributes in page.elements}


def test_the_page_needs_nothing_else(judged: tuple[list[Finding], History], tmp_path: Path) -> None:
    text = page_of(*judged, tmp_path)
    page = Reader(text)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert not any(name in attributes for _, attributes in page.elements for name in ("src", "srcset", "onclick", "style"))
    assert all(str(attributes["href"]).startswith("#") for _, attributes in page.elements if "href" in attributes)
    assert re.search(r"https?:|url\(|@import", text) is None
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_whatever_a_history_holds_stays_text_on_the_page(tmp_path: Path) -> None:
    page = Reader(page_of(nasty_findings(), nasty_history(), tmp_path))
    assert "script" not in {tag for tag, _ in page.elements}
    assert any("<script>alert(1)</script>" in text for text in page.text)


def test_the_page_of_an_empty_history_can_be_read(tmp_path: Path) -> None:
    history = Story().history()
    page = Reader(page_of(check_all(history), history, tmp_path))
    assert "svg" in {tag for tag, _ in page.elements}


# ---------------------------------------------------------------- the terminal


def test_the_terminal_tells_each_promise_and_how_it_was_broken(
    judged: tuple[list[Finding], History], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_verdict(*judged, tmp_path, Output())
    told = capsys.readouterr().out
    assert re.search(r"^BROKEN  fencing +settled 2", told, re.MULTILINE)
    assert re.search(r"^held    delays", told, re.MULTILINE)
    assert re.search(r"^unknown baseline\n +nothing was counted before the first fault$", told, re.MULTILINE)
    assert "- 15.000 s: task stale w1 settled delivery 1 2.000 s after w2 had received delivery 2" in told
    assert re.search(r"^ +15\.001 s  settle ok +w1 +ack, succeeded$", told, re.MULTILINE)
    assert re.search(r"^broken: \d+ of \d+ promises$", told, re.MULTILINE)
    assert re.search(r"^repeat  stem-chaos run hand-written", told, re.MULTILINE)
    assert "\x1b" not in told


SHOW = """
from pathlib import Path
from stem_chaos.checker.all import check_all
from stem_chaos.report.terminal import print_verdict
from stem_cli.output import Output
from tests.chaos.test_report import broken_story
history = broken_story().history()
print_verdict(check_all(history), history, Path("run"), Output())
"""


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_it_wants_none(no_color: str, is_coloured: bool) -> None:
    root = Path(__file__).parents[2]
    path = os.pathsep.join(str(root / part) for part in ("", "cli", "chaos"))
    environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": no_color, "TERM": "xterm-256color", "COLUMNS": "80"}
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", SHOW], cwd=root, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        told = b""
        try:
            while chunk := os.read(ours, 65536):
                told += chunk
        except OSError:  # the other end is closed
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0, told
    assert b"BROKEN" in told
    assert (b"\x1b[1;31m" in told) is is_coloured
