"""The face of a run: drawn over in place on a terminal, line by line elsewhere."""

import os
import signal
import subprocess
import sys
import time

import pytest

from penjing.cli.face import best_words, left_words
from penjing.graph import Option, Place, Plan
from penjing.planning import MeasuredPlan
from terminal import seen, terminal

RUN = """
import signal, sys, time
from penjing.cli.face import Face
from penjing.graph import Plan
from penjing.lines import Lasting
from penjing.planning import MeasuredPlan
from penjing.run.progress import Progress

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
with Face("--json" in sys.argv) as face:
    watch = face.watch or (lambda progress: None)
    face("This will take a minute.")
    watch(Progress("choose", time.monotonic() + 125, 60))
    face("first [bold]candidate")
    face(Lasting("Warning: the original is bad."))
    watch(Progress("choose", time.monotonic() + 125, 60, MeasuredPlan(Plan(), 9, 0.47, 1.0, 4850, True)))
    face("second candidate")
    if "--stop" in sys.argv:
        time.sleep(60)
    if "--fail" in sys.argv:
        raise SystemExit(3)
    watch(Progress("recover", time.monotonic() + 3, 1, None, 7, 40, 0.125))
print("The end.")
"""
SAID = [
    "This will take a minute.",
    "first [bold]candidate",
    "Warning: the original is bad.",
    "second candidate",
    "The end.",
]


def environment(**more):
    return (
        os.environ | {"TERM": "xterm", "COLUMNS": "160", "LINES": "40", "PYTHONPATH": os.pathsep.join(sys.path)} | more
    )


def on_terminal(*arguments, until=None, **more):
    with terminal() as made:
        command = [sys.executable, "-c", RUN, *arguments]
        process = subprocess.Popen(
            command, stdin=made.slave, stdout=made.slave, stderr=made.slave, env=environment(**more)
        )
        if until is not None:
            end = time.monotonic() + 60
            while until not in made.text and process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    return made, process.returncode


def test_lines_are_drawn_over_and_only_lasting_ones_stay():
    made, code = on_terminal()
    assert code == 0 and made.shows_cursor
    assert made.lines == ["This will take a minute.", "Warning: the original is bad.", "The end."]
    for line in SAID:
        assert line in made.text


def test_stage_time_left_and_best_plan_stand_in_one_line_each():
    made, _ = on_terminal()
    during = seen(made.text[: made.text.rindex("second candidate") + len("second candidate")])
    stage, left, best, now = during[-4:]
    assert stage.split() == [
        "stage",
        "✓",
        "capture",
        "✓",
        "profile",
        "▸",
        "choose",
        "·",
        "prune",
        "·",
        "recover",
        "·",
        "quantise",
        "·",
        "lower",
        "·",
        "verify",
        "·",
        "report",
    ]
    assert left.split(maxsplit=1) == ["left", "about 2 min"]
    assert best.split(maxsplit=1) == ["best", "0.47× the latency, 4,850 bytes, keeps the budget"]
    assert now.split(maxsplit=1) == ["now", "second candidate"]
    assert during[:-4] == ["This will take a minute.", "Warning: the original is bad."]
    assert "step 7 of 40, loss 0.125" in made.text


def test_on_a_narrow_terminal_no_line_runs_into_the_next():
    made, _ = on_terminal(COLUMNS="40")
    during = seen(made.text[: made.text.rindex("second candidate") + len("second candidate")])
    assert all(len(line) <= 40 for line in during[-4:])
    assert made.lines == ["This will take a minute.", "Warning: the original is bad.", "The end."]


def test_ctrl_c_leaves_the_terminal_as_it_was():
    made, code = on_terminal("--stop", until="second candidate")
    assert code != 0 and made.shows_cursor
    assert made.lines[:2] == ["This will take a minute.", "Warning: the original is bad."]
    assert not any(line.startswith(("stage", "left ", "best", "now")) for line in made.lines)


def test_an_error_leaves_the_terminal_as_it_was():
    made, code = on_terminal("--fail")
    assert code == 3 and made.shows_cursor
    assert made.lines == ["This will take a minute.", "Warning: the original is bad."]


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_where_standard_output_is_no_terminal_every_line_is_printed(variables):
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=environment(**variables), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == SAID and done.stderr == ""


def test_on_a_terminal_that_moves_no_cursor_every_line_is_printed():
    made, _ = on_terminal(TERM="dumb")
    assert made.lines == SAID


def test_beside_json_in_a_file_the_lines_are_printed_on_standard_error():
    with terminal() as made:
        command = [sys.executable, "-c", RUN, "--json"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=made.slave, env=environment(), text=True, check=True
        )
    assert made.lines == SAID[:-1] and done.stdout == "The end.\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds"),
        (9, "a few seconds"),
        (42, "about 40 s"),
        (60, "about 1 min"),
        (135, "about 2 min 20 s"),
        (3599, "about 60 min"),
    ],
)
def test_the_time_left_is_told_as_roughly_as_it_is_known(seconds, words):
    assert left_words(seconds) == words


def test_a_part_of_the_run_that_takes_too_long_does_not_make_the_later_ones_shorter():
    assert left_words(130, after=120) == "about 2 min 10 s"
    assert left_words(110, after=120) == left_words(-50, after=120) == "longer than expected, and then about 2 min"
    assert left_words(-5) == "longer than expected"


def test_the_best_plan_tells_its_damage_where_it_is_known():
    option = Option(Place("group", "a"), "prune", {"keep": 4}, 8, 4, {"damage": 0.0896})
    assert best_words(MeasuredPlan(Plan((option,)), 9, 0.5, 1.0, 48, False)) == (
        "0.50× the latency, 48 bytes, expected loss +0.0896, misses the budget"
    )
