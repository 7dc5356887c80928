"""A run on a terminal: what stays there, and the log that keeps the rest."""

import os
import re
import sys

from command_line import COMPRESS

from terminal import terminal


def test_on_a_terminal_stages_are_drawn_over_and_the_log_keeps_every_line(chosen, penjing, tmp_path, monkeypatch):
    plain = penjing(*COMPRESS, "--out", tmp_path / "plain")
    monkeypatch.setenv("TERM", "xterm")
    with terminal() as made, os.fdopen(os.dup(made.slave), "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        drawn = penjing(*COMPRESS, "--out", tmp_path / "drawn")
    assert plain.code == drawn.code == 0 and made.shows_cursor
    for stage in ("choose", "recover", "verify"):
        assert f"▸ {stage}" in made.text and f"▸ {stage}" not in plain.out
    assert re.search(r"step [\d,]+ of [\d,]+, loss \d", made.text)

    def told(lines):  # without times and names of folders, which differ from run to run
        return [re.sub(r"\(\d+ s\)|[\d.]+ ?(ms|s|min|×|%)|/\S+", "", line) for line in lines]

    said = plain.out.splitlines()
    stay = told(made.lines)
    assert told(said)[:2] == stay[:2], "what a person decides by is told before the run begins, and stays"
    assert any(line.startswith("The original: ") for line in made.lines)
    assert "The proof: " in made.lines[-1]
    assert not any("epoch 1:" in line or line.startswith(("stage ", "left ", "best ", "now ")) for line in made.lines)
    log = (tmp_path / "drawn" / ".penjing" / "log.txt").read_text().splitlines()
    during = said[next(i for i, line in enumerate(said) if line.startswith("The original: ")) : said.index("")]
    noted = told(line[20:] for line in log if "Stage: " not in line)
    assert noted == told(during)
    assert (tmp_path / "plain" / ".penjing" / "log.txt").read_text().count("\n") == len(log)
