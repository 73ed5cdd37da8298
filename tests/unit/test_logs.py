from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from stem_actors import logs
from stem_actors.executors import context
from tests.unit.executors.test_context import RecordingLink


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_json_lines_carry_what_was_given_as_extra() -> None:
    stream = io.StringIO()
    logs.set_up_logging("info", "json", stream=stream)
    logging.getLogger("stem.x").warning("lost %d", 2, extra={"queue": "mail", "worker": None})
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "logger": "stem.x", "message": "lost 2", "queue": "mail"}


def test_plain_lines_are_logfmt() -> None:
    stream = io.StringIO()
    logs.set_up_logging("info", "plain", stream=stream)
    logging.getLogger("stem").info('say "hi"\nthere', extra={"queue": "mail", "empty": ""})
    _, rest = stream.getvalue().split(" ", 1)
    assert rest == 'level=info logger=stem msg="say \\"hi\\"\\nthere" queue=mail empty=""\n'


def test_pretty_lines_have_no_colour_away_from_a_terminal() -> None:
    stream = io.StringIO()
    logs.set_up_logging("info", "pretty", stream=stream)
    logging.getLogger("stem").info("ready", extra={"queue": "mail"})
    assert stream.getvalue()[12:] == " info     ready  queue=mail\n"


@pytest.mark.parametrize("format", ["pretty", "plain", "json"])
def test_an_exception_is_logged_with_its_traceback(format: str) -> None:
    stream = io.StringIO()
    logs.set_up_logging("info", format, stream=stream)
    try:
        raise ValueError("no such thing")
    except ValueError:
        logging.getLogger("stem").exception("failed")
    assert "Traceback" in stream.getvalue()
    assert "no such thing" in stream.getvalue()
    assert format == "pretty" or stream.getvalue().count("\n") == 1


def test_less_than_the_level_is_not_logged() -> None:
    stream = io.StringIO()
    logs.set_up_logging("warning", "plain", stream=stream)
    logging.getLogger("stem").info("not this")
    assert stream.getvalue() == ""


def test_a_line_written_in_a_task_carries_task_and_attempt() -> None:
    stream = io.StringIO()
    logs.set_up_logging("info", "json", context.log_fields, stream)
    token = context.enter(context.TaskContext(RecordingLink(), 7, "id-1", "shop.mail", 2, {}, {}))
    logging.getLogger("users.own").info("in", extra={"id": "mine"})
    context.leave(token)
    logging.getLogger("users.own").info("out")
    inside, outside = map(json.loads, stream.getvalue().splitlines())
    assert (inside["task"], inside["attempt"], inside["id"]) == ("shop.mail", 2, "mine")
    assert "task" not in outside


def test_setting_up_twice_does_not_log_twice() -> None:
    stream = io.StringIO()
    logs.set_up_logging("info", "plain", stream=stream)
    logs.set_up_logging("info", "plain", stream=stream)
    logging.getLogger("stem").info("once")
    assert stream.getvalue().count("once") == 1
