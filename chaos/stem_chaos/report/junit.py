"""The report as JUnit XML, as build servers read it: a test case for each checker, undecided ones as skipped."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from stem_chaos.checker.finding import Finding, Validity, Violation
from stem_chaos.history import History
from stem_chaos.report.facts import duration_of, facts_of, figures_of, replay_command, seconds_into

__all__ = ["write_junit"]

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(findings: Sequence[Finding], history: History, path: Path) -> None:
    facts = history.facts
    suite = ET.Element(
        "testsuite",
        name=_clean(f"stem-chaos {facts.suite}"),
        tests=str(len(findings)),
        failures=str(sum(finding.validity is Validity.INVALID for finding in findings)),
        errors="0",
        skipped=str(sum(finding.validity is Validity.UNKNOWN for finding in findings)),
        time=f"{duration_of(history):.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in {**facts_of(history), "replay": replay_command(facts)}.items():
        ET.SubElement(properties, "property", name=_clean(name), value=_clean(value))
    for finding in findings:
        case = ET.SubElement(
            suite, "testcase", classname=_clean(f"stem_chaos.{facts.suite}"), name=_clean(finding.checker), time="0"
        )
        match finding.validity:
            case Validity.INVALID:
                count = finding.figures.get("violations", len(finding.violations))
                failure = ET.SubElement(case, "failure", message=_clean(f"{finding.promise} Broken {count} times."))
                failure.text = _clean("\n".join(_line(violation, history) for violation in finding.violations))
            case Validity.UNKNOWN:
                ET.SubElement(case, "skipped", message=_clean(finding.reason or "undecided"))
            case Validity.VALID:
                pass
        ET.SubElement(case, "system-out").text = _clean(f"{finding.promise}\n{figures_of(finding)}")
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    ET.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)


def _line(violation: Violation, history: History) -> str:
    at = "" if violation.at is None else f"{seconds_into(history, violation.at):.3f} s: "
    return f"{at}{'' if violation.task_id is None else f'task {violation.task_id} '}{violation.text}"


def _clean(text: str) -> str:
    """Without the characters that XML has no way to hold."""
    return _NOT_IN_XML.sub("\ufffd", text)
