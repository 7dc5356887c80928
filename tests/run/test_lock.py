import os
import subprocess
import sys
import threading

import pytest

from penjing.errors import PenjingError
from penjing.run.lock import LOCK, locked

HOLD = """
import sys, time
from pathlib import Path
from penjing.run.lock import locked
with locked(Path(sys.argv[1]), Path("out")):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_in_use_is_refused_with_the_process_and_free_again_once_that_is_killed(tmp_path):
    process = hold(tmp_path)
    try:
        told = pytest.raises(PenjingError, match=rf"out is in use by another Penjing .* \(process {process.pid}\)")
        with told, locked(tmp_path, "out"):
            pass
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / LOCK).exists(), "kill -9 leaves the file"
    with locked(tmp_path, "out"):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_this_very_process_counts_too(tmp_path):
    with locked(tmp_path, "out"), pytest.raises(PenjingError, match=f"process {os.getpid()}"), locked(tmp_path, "out"):
        pass
    with locked(tmp_path, "out"):
        pass


def test_of_many_at_once_one_is_in(tmp_path):
    inside, most, errors = 0, 0, 0
    guard = threading.Lock()

    def work():
        nonlocal inside, most, errors
        for _ in range(50):
            try:
                with locked(tmp_path, "out"):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
            except PenjingError:
                errors += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert most == 1 and inside == 0


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be removed there")
@pytest.mark.parametrize("other", ["nothing", "a new file"])
def test_who_waited_on_a_file_that_is_gone_locks_the_one_that_is_there(tmp_path, monkeypatch, other):
    """Between opening the file and locking it, its owner may have ended and removed it, and the next one made another."""
    import fcntl

    path, real, calls = tmp_path / LOCK, fcntl.flock, []

    def late(descriptor, operation):
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()
            if other == "a new file":
                path.touch()
        return real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path, "out"):
        assert path.read_text() == str(os.getpid())
        with pytest.raises(PenjingError, match="in use"), locked(tmp_path, "out"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_folders_made_for_the_lock_go_with_it_unless_something_is_in_them(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a" / "b", "out"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "b", "out"):
        (tmp_path / "a" / "result").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(PenjingError, match="Can't write to out: Not a directory"),
        locked(tmp_path / "file" / "x", "out"),
    ):
        pass
