"""Temporary files: whose they are, and that nobody's are removed while nobody else's are touched."""

import os
import re
import subprocess
import sys
import time

import pytest

from penjing import files
from penjing.files import ABANDONED, atomic_path, atomic_write, is_temporary, left_behind, sweep

# Loads the file alone: the package would import torch.
WRITE = """
import runpy, sys
with runpy.run_path(sys.argv[1])["atomic_path"](sys.argv[2]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def killed(tmp_path):
    """The temporary file of a process that was killed while it wrote tmp_path/model.onnx."""
    process = writing(tmp_path)
    process.kill()
    process.communicate()
    (path,) = [path for path in tmp_path.iterdir() if is_temporary(path)]
    return path


def writing(folder):
    command = [sys.executable, "-c", WRITE, files.__file__, folder / "model.onnx"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_process_was_writing_is_swept(killed, tmp_path):
    assert killed.suffix == ".onnx" and not (tmp_path / "model.onnx").exists()
    assert left_behind(tmp_path) == [killed] and killed.exists()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_process_is_writing_stays(tmp_path):
    process = writing(tmp_path)
    try:
        assert left_behind(tmp_path) == []
        sweep(tmp_path)
    finally:
        process.communicate("")
    assert (tmp_path / "model.onnx").read_text() == "half"


def test_what_this_process_is_writing_stays_but_not_what_an_earlier_one_of_its_number_left(killed, tmp_path):
    with atomic_path(tmp_path / "other.onnx") as mine:
        parts = mine.name.split("-")
        namesake = mine.with_name("-".join([*parts[:-1], "letters.tmp.onnx"]))
        namesake.touch()
        assert left_behind(tmp_path) == sorted([killed, namesake])


def test_another_machine_s_are_left_alone_for_a_day(killed, tmp_path):
    theirs = killed.rename(killed.with_name(re.sub(r"-[0-9a-f]{8}-", "-0123abcd-", killed.name)))
    assert is_temporary(theirs) and left_behind(tmp_path) == []
    yesterday = time.time() - ABANDONED - 1
    os.utime(theirs, (yesterday, yesterday))
    assert left_behind(tmp_path) == [theirs]


def test_only_those_of_one_name_are_swept_where_that_is_asked(killed, tmp_path):
    assert left_behind(tmp_path, "other") == [] and left_behind(tmp_path, "model") == [killed]
    assert left_behind(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", ["model.onnx", ".hidden", ".model.tmp.onnx", ".model.12.tmp", ".notes.12-short-x.tmp"])
def test_no_file_of_the_user_is_taken_for_a_temporary_one(name, tmp_path):
    (tmp_path / name).touch()
    sweep(tmp_path)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    "name",
    ["a" * 250 + ".json", "盆" * 80 + ".onnx", "no suffix", "two.suffixes.gz", "new\nline.json"],
    ids=["long", "of three bytes each", "without suffix", "two suffixes", "two lines"],
)
def test_any_name_that_a_file_may_have_can_be_written(name, tmp_path):
    seen = []
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("whole")
        seen.append(temporary)
    atomic_write(tmp_path / name, "again")
    assert is_temporary(seen[0]) and (tmp_path / name).read_text() == "again"
    assert [path.name for path in tmp_path.iterdir()] == [name]
