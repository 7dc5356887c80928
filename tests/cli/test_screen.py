"""What stands in names, paths and errors is printed as it stands there, and commands no terminal."""

import io
import sys

import pytest
from rich.table import Table

from penjing.cli import main
from penjing.cli.screen import Screen, styled

LITERAL = [
    ":b: :smile:",
    "[bold]not bold[/bold]",
    "[/]",
    "\\[red]x",
    "[link=a.b]c[/link]",
    "path\\",
    "日本 é",
    "{0}",
]
SPELT_OUT = [
    ("\x1b[2J", r"\x1b[2J"),
    ("a\rb\a\b", r"a\rb\x07\x08"),
    ("caf\udce9", r"caf\udce9"),
    ("\u202egnp.exe", r"\u202egnp.exe"),
    ("\x9b31m", r"\x9b31m"),
]
EVERY = [(text, text) for text in LITERAL] + SPELT_OUT


def screen():
    return Screen(file=io.StringIO(), width=120, soft_wrap=True)


@pytest.mark.parametrize(("text", "drawn"), EVERY)
@pytest.mark.parametrize("put", [lambda text: text, lambda text: styled(text, "bold")], ids=["plain", "styled"])
def test_a_line_stands_as_it_was_given(text, drawn, put):
    to = screen()
    to.print(put(text))
    assert to.file.getvalue() == drawn + "\n"


@pytest.mark.parametrize(("text", "drawn"), EVERY)
def test_a_cell_stands_as_it_was_given(text, drawn):
    table, to = Table("head"), screen()
    table.add_row(text)
    to.print(table)
    assert drawn in to.file.getvalue()


@pytest.mark.parametrize(("text", "drawn"), EVERY)
@pytest.mark.parametrize("command", [["list"], ["report"], ["profile"]])
def test_an_error_repeats_an_argument_as_it_was_given(monkeypatch, capfd, command, text, drawn):
    monkeypatch.setattr(sys, "argv", ["penjing", *command, text])
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as stop:
        main()
    said = capfd.readouterr().err
    assert stop.value.code == 2 and drawn in said


def test_lines_and_tabs_of_a_message_stay():
    to = screen()
    to.print("one\n\ttwo")
    assert to.file.getvalue() == "one\n        two\n"
