import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from penjing.errors import PenjingError
from penjing.files import atomic_path
from penjing.run.workspace import INNER, Workspace, check_space, look, read_json, write_json

NO_TIMES = '{"key": "", "settings": {}, "seconds": {"a": "b"}}'
GONE = 2**22 + 1  # more than the largest number of a process
SETTINGS = {"model": "abc", "seed": 0}


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_stage_is_done_once_and_then_read(tmp_path):
    made = []

    def run():
        space = Workspace(tmp_path / "out", SETTINGS)
        return space.stage("count", "n.json", lambda: made.append(1) or len(made), write_json, read_json)

    assert (run(), run()) == (1, 1) and made == [1]


def test_a_stage_that_fails_leaves_nothing_and_is_done_again(tmp_path):
    space = Workspace(tmp_path / "out", SETTINGS)
    with pytest.raises(ZeroDivisionError):
        space.stage("count", "n.json", lambda: 1 / 0, write_json, read_json)
    assert everything(space.inner) == ["run.json"]
    assert space.stage("count", "n.json", lambda: 2, write_json, read_json) == 2


def test_the_time_of_a_stage_adds_up_over_attempts(tmp_path, monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 13.0])
    monkeypatch.setattr("penjing.run.workspace.time.monotonic", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), Workspace(tmp_path, SETTINGS).timed("train"):
        raise KeyboardInterrupt
    with Workspace(tmp_path, SETTINGS).timed("train"):
        pass
    assert Workspace(tmp_path, SETTINGS).seconds == {"train": 5.0}


def test_another_run_is_refused_with_what_differs(tmp_path):
    Workspace(tmp_path, SETTINGS)
    with pytest.raises(PenjingError, match=r"holds another run \(seed was 0 and is 1\)\. Give another folder, remove"):
        Workspace(tmp_path, {**SETTINGS, "seed": 1})
    Workspace(tmp_path, SETTINGS)


def test_a_folder_with_something_else_is_refused_and_stays_as_it_was(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(PenjingError, match="is not empty and holds no Penjing run; give a new or empty folder"):
        Workspace(tmp_path, SETTINGS)
    assert everything(tmp_path) == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(PenjingError, match="is a file; give a folder"):
        Workspace(tmp_path / "out", SETTINGS)
    with pytest.raises(PenjingError, match=r"Can't write to .*out/deeper: Not a directory"):
        Workspace(tmp_path / "out" / "deeper", SETTINGS)


@pytest.mark.skipif(not Path("/proc/sys").is_dir(), reason="needs a folder in which even root can't write")
def test_a_folder_without_the_right_to_write_is_refused():
    with pytest.raises(PenjingError, match=r"Can't write to /proc/sys/penjing: "):
        Workspace("/proc/sys/penjing", SETTINGS)


def test_a_folder_that_others_own_is_refused(tmp_path, monkeypatch):
    def not_yours(**_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.TemporaryFile", not_yours)  # root may write anywhere
    with pytest.raises(PenjingError, match=r"Can't write to .*out: Permission denied"):
        Workspace(tmp_path / "out", SETTINGS)
    assert everything(tmp_path) == []


def test_looking_writes_nothing_and_tells_what_is_there(tmp_path):
    held = look(tmp_path / "new" / "out", SETTINGS)
    assert not held.has("n.json") and held.seconds == {} and everything(tmp_path) == []
    space = Workspace(tmp_path / "out", SETTINGS)
    space.stage("count", "n.json", lambda: 1, write_json, read_json)
    before = everything(tmp_path)
    held = look(tmp_path / "out", SETTINGS)
    assert held.has("n.json") and not held.has("n.json", "m.json") and held.seconds.keys() == {"count"}
    assert everything(tmp_path) == before
    with pytest.raises(PenjingError, match="holds another run"):
        look(tmp_path / "out", {"model": "def"})


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path / "new" / "out", 1000)
    with pytest.raises(PenjingError, match=r"Not enough space for .*out: about \d+ MB are needed and \d+ MB are free"):
        check_space(tmp_path / "new" / "out", free + 10**9)


@pytest.mark.parametrize("there", [0, 3000])
def test_what_a_folder_holds_already_counts_once(tmp_path, monkeypatch, there):
    if there:
        (tmp_path / "out" / "in").mkdir(parents=True)
        (tmp_path / "out" / "in" / "a").write_bytes(bytes(there - 1000))
        (tmp_path / "out" / "b").write_bytes(bytes(1000))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000))
    check_space(tmp_path / "out", 5_000 + there)
    with pytest.raises(PenjingError, match="Not enough space"):
        check_space(tmp_path / "out", 5_000 + there + 1)


def test_what_is_there_already_counts_once_and_what_a_killed_run_left_does_not(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5000))
    (tmp_path / "model.onnx").write_bytes(b"x" * 3000)
    check_space(tmp_path, 8000)
    with pytest.raises(PenjingError, match="Not enough space"):
        check_space(tmp_path, 8001)
    (tmp_path / INNER).mkdir()
    left = abandoned(tmp_path / INNER / "recover.checkpoint", 2000)
    check_space(tmp_path, 8000 + 2000)  # once it is swept, its room is free
    with pytest.raises(PenjingError, match="Not enough space"):
        check_space(tmp_path, 8000 + 2001)
    assert left.exists(), "looking removes nothing"


def test_a_run_removes_what_a_killed_one_left_and_nothing_else(tmp_path):
    space = Workspace(tmp_path, SETTINGS)
    (space.inner / "candidates").mkdir()
    left = [
        abandoned(path) for path in (tmp_path / "model.onnx", space.inner / "a.json", space.inner / "candidates" / "b")
    ]
    (space.inner / "recover.checkpoint").touch()
    with atomic_path(space.inner / "mine.json") as mine:
        Workspace(tmp_path, SETTINGS)
        assert mine.exists() and not any(path.exists() for path in left)
    assert everything(space.inner) == ["candidates", "mine.json", "recover.checkpoint", "run.json"]


def abandoned(path, size=1):
    """Leaves a temporary file as a process does that is killed while it writes `path`."""
    with atomic_path(path) as temporary:
        content = temporary.with_name(temporary.name.replace(f".{os.getpid()}-", f".{GONE}-"))
        content.write_bytes(b"x" * size)
    path.unlink()
    return content


def test_a_damaged_product_is_told_and_made_again(tmp_path):
    said = []
    space = Workspace(tmp_path, SETTINGS, said.append)
    assert space.stage("count", "n.json", lambda: 1, write_json, read_json) == 1
    (space.inner / "n.json").write_text("{")
    assert space.stage("count", "n.json", lambda: 2, write_json, read_json) == 2
    assert "n.json is damaged, so 'count' is done again" in said[0]
    assert space.stage("count", "n.json", lambda: 3, write_json, read_json) == 2


def test_what_is_not_final_is_not_kept(tmp_path):
    space = Workspace(tmp_path, SETTINGS)
    for number in (1, 2):
        assert space.stage("count", "n.json", lambda n=number: n, write_json, read_json, lambda _: False) == number


def test_what_was_built_on_another_decision_goes(tmp_path):
    space = Workspace(tmp_path, SETTINGS)
    space.settle("taken.json", {"a": 1}, "later.json")
    (space.inner / "later.json").touch()
    space.settle("taken.json", {"a": 1}, "later.json")
    assert (space.inner / "later.json").exists()
    space.settle("taken.json", {"a": 2}, "later.json")
    assert not (space.inner / "later.json").exists()


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_space_for_the_first_file_leaves_no_folder_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(PenjingError, match=r"Can't write to .*out: No space left on device"):
        Workspace(tmp_path / "new" / "out", SETTINGS)
    assert everything(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(PenjingError, match="No space left"):
        Workspace(tmp_path / "mine", SETTINGS)
    assert everything(tmp_path) == ["mine"]


def test_no_space_within_a_run_says_what_to_do_and_keeps_finished_stages(tmp_path, monkeypatch):
    space = Workspace(tmp_path, SETTINGS)
    space.stage("first", "a.json", lambda: 1, write_json, read_json)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(PenjingError, match=r"No space left on device.*the same command goes on"):
            space.stage("second", "b.json", lambda: 2, write_json, read_json)
        with pytest.raises(PenjingError, match="No space left"), space.timed("third"):
            full_disk()
    assert everything(tmp_path) == [INNER, f"{INNER}/a.json", f"{INNER}/run.json"]
    space = Workspace(tmp_path, SETTINGS)
    assert space.stage("second", "b.json", lambda: 2, write_json, read_json) == 2


def test_an_error_that_is_not_about_writing_is_passed_on(tmp_path):
    with pytest.raises(FileNotFoundError), Workspace(tmp_path, SETTINGS).timed("train"):
        (tmp_path / "photo.png").read_bytes()


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"key": 1}', NO_TIMES, "\udcff"])
def test_a_damaged_record_is_named(tmp_path, content):
    Workspace(tmp_path, SETTINGS)
    (tmp_path / INNER / "run.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(PenjingError, match=r"run\.json can't be read|holds another run"):
        Workspace(tmp_path, SETTINGS)
