"""The log of a run: every line, whatever became of the file before."""

import re

import pytest

from penjing.run.log import RunLog

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def test_lines_are_said_and_appended_with_the_time(tmp_path):
    said = []
    for line in ("one", "two\nlines"):
        RunLog(said.append, tmp_path / "log.txt")(line)
    assert said == ["one", "two\nlines"]
    assert re.fullmatch(f"{TIME}one\n{TIME}two\n {{20}}lines\n", (tmp_path / "log.txt").read_text())


@pytest.mark.parametrize("before", [b"\xff\xfe\x00half a line", b"whole\n", b""])
def test_whatever_the_file_holds_stays_and_the_next_line_begins_anew(before, tmp_path):
    (tmp_path / "log.txt").write_bytes(before)
    RunLog(lambda line: None, tmp_path / "log.txt").note("next")
    content = (tmp_path / "log.txt").read_bytes()
    assert content.startswith(before) and re.search(rf"(?:\n|^){TIME}next\n$".encode(), content)


def test_a_log_that_can_not_be_written_is_told_once_and_stops_nothing(tmp_path):
    (tmp_path / "log.txt").mkdir()
    said = []
    log = RunLog(said.append, tmp_path / "log.txt")
    log("one")
    log("two")
    assert [said[0], said[2]] == ["one", "two"] and "so this run keeps no log" in said[1] and len(said) == 3


def test_control_characters_and_odd_names_are_spelt_out(tmp_path):
    RunLog(lambda line: None, tmp_path / "log.txt").note("a\x1b[2Jb\rc\udce9\x9b")
    assert (tmp_path / "log.txt").read_text().endswith(r"a\x1b[2Jb\x0dc\udce9\x9b" + "\n")
