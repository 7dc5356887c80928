"""The scripts by which shells complete what a user types."""

import os
import shutil
import subprocess
import sys

import pytest

from penjing.cli.app import SHELLS

ASK = """
source script
COMP_WORDS=({words}) COMP_CWORD={last} COMP_LINE="{words}"
_penjing_completion penjing
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def home(tmp_path):
    """A folder in which `penjing` is a command."""
    command = tmp_path / "penjing"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m penjing "$@"\n')
    command.chmod(0o755)
    return tmp_path


def run(home, *command):
    paths = os.pathsep.join((str(home), os.environ["PATH"]))
    return subprocess.run(
        command, cwd=home, env=os.environ | {"PATH": paths}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_accepts_its_script(home, shell):
    script = run(home, "penjing", "--completion", shell)
    assert script.returncode == 0 and "penjing" in script.stdout, script.stderr
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} isn't installed")
    (home / "script").write_text(script.stdout)
    assert run(home, shell, "-n", "script").stderr == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash isn't installed")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("penjing ver", {"verify"}),
        ("penjing comp", {"compress", "compare"}),
        ("penjing compress --keep-", {"--keep-channels", "--keep-float", "--keep-norms"}),
        ("penjing list gri", {"grids"}),
    ],
)
def test_bash_completes_commands_options_and_names(home, words, found):
    (home / "script").write_text(run(home, "penjing", "--completion", "bash").stdout)
    asked = run(home, "bash", "-c", ASK.format(words=words, last=len(words.split()) - 1))
    assert set(asked.stdout.split()) == found, asked.stderr


def test_another_shell_is_refused_with_those_that_are_known(home):
    refused = run(home, "penjing", "--completion", "bsh")
    assert refused.returncode == 2 and "bash" in refused.stderr and "Traceback" not in refused.stderr
