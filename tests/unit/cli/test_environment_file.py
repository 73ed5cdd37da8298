from __future__ import annotations

from pathlib import Path

import pytest

from stem_actors.errors import ConfigError
from stem_cli.environment_file import EnvironmentFile, parse, read


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  A = b c  ", "b c"),
        ("export A=b", "b"),
        ("A=", ""),
        ("A=b=c", "b=c"),
        ("A='b c'", "b c"),
        ('A="b c"', "b c"),
        ("A=''", ""),
        (r'A="one\ntwo"', "one\ntwo"),
        (r"A='one\ntwo'", r"one\ntwo"),
        (r"A=one\ntwo", r"one\ntwo"),
        (r'A="a \"b\" \\ \d"', r'a "b" \ \d'),
        ("A=b # c", "b # c"),
        ("A=redis://:p%20w@h/0?db=1", "redis://:p%20w@h/0?db=1"),
        ("A=it's", "it's"),
        ("A=é", "é"),
    ],
)
def test_a_line_sets_one_variable(line: str, value: str) -> None:
    assert parse(f"{line}\n", "f") == EnvironmentFile({"A": value}, [])


def test_empty_lines_and_comments_say_nothing_and_the_last_of_two_counts() -> None:
    found = parse("# settings\n\nA=1\r\n   # B=2\nC=3\nA=4", "f")
    assert found == EnvironmentFile({"A": "4", "C": "3"}, [])


def test_a_line_that_is_none_is_reported_by_its_number_without_what_stands_there() -> None:
    found = parse("A=1\nsecret\n=secret\n9=secret\nB-C=secret\nD=\"secret\nE='\nF=2\n", "env")
    assert found.values == {"A": "1", "F": "2"}
    assert [problem.split(":")[1] for problem in found.problems] == ["2", "3", "4", "5", "6", "7"]
    assert "secret" not in "".join(found.problems)
    assert found.problems[0] == "env:2: not KEY=VALUE"
    assert "D is not closed" in found.problems[4]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        read(str(tmp_path / "nowhere"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe=")
    with pytest.raises(ConfigError, match="no UTF-8"):
        read(str(tmp_path / "binary"))
    (tmp_path / "env").write_bytes("\ufeffA=b\n".encode())
    assert read(str(tmp_path / "env")).values == {"A": "b"}
