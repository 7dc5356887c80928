"""What libraries write to standard error is caught, and nothing else changes."""

import os
import subprocess
import sys

from penjing.targets._standard_error import caught


def test_what_a_block_writes_is_returned_and_not_shown(capfd):
    os.write(2, b"before\n")
    with caught() as lines:
        os.write(2, b"one\n\xff two\n")
        assert lines() == ["one", "\N{REPLACEMENT CHARACTER} two"]
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"


def test_a_process_without_standard_error_catches_nothing():
    code = (
        "import os\nfrom penjing.targets._standard_error import caught\nos.close(2)\n"
        "with caught() as lines: print(lines())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "[]"
