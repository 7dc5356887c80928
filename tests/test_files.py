"""What a reader, a crash or a full disk may see of a file that is written."""

import errno
import os
import resource
import stat
from pathlib import Path

import pytest

from penjing.files import atomic_path, atomic_paths, atomic_write, is_temporary, sha256


@pytest.fixture
def few_bytes():
    """Lets no file grow beyond 100 bytes, as a full disk would: the system writes what fits and then says no."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_does_not_fit_leaves_the_old_one_whole(tmp_path, few_bytes):
    path = tmp_path / "a.json"
    atomic_write(path, "old")
    with pytest.raises(OSError) as told:
        atomic_write(path, "n" * 1000)
    assert told.value.errno == errno.EFBIG
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_file_that_does_not_fit_is_not_there_if_it_was_not_before(tmp_path, few_bytes):
    with pytest.raises(OSError):
        atomic_write(tmp_path / "a.json", "n" * 1000)
    assert os.listdir(tmp_path) == []


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path):
    path = tmp_path / "a.txt"
    atomic_write(path, "old and whole")
    with path.open() as reader:
        assert reader.read(3) == "old"
        atomic_write(path, "new")
        assert reader.read() == " and whole"
    assert path.read_text() == "new"


def test_the_old_file_is_there_until_the_new_one_takes_its_place(tmp_path, monkeypatch):
    """Whatever moves or removes a file finds the old content under its name until then."""
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    seen = []

    def watched(name):
        real = getattr(os, name)

        def call(*args, **kwargs):
            before = path.read_text() if path.exists() else None
            result = real(*args, **kwargs)
            seen.append((before, path.read_text() if path.exists() else None))
            return result

        monkeypatch.setattr(os, name, call)

    for name in ("replace", "rename", "unlink", "remove"):
        watched(name)
    atomic_write(path, "new")
    assert ("old", "new") in seen
    assert all(None not in pair for pair in seen)


def test_a_move_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    atomic_write(path, "old")

    def fails(*args, **kwargs):
        raise OSError(errno.EIO, "no")

    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, fails)
    with pytest.raises(OSError):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_in_the_block_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_temporary_path_lies_beside_the_file_with_its_suffix(tmp_path):
    """On another file system the move would be a copy, and some writers choose the format by the suffix."""
    with atomic_path(tmp_path / "made" / "m.onnx") as temporary:
        assert temporary.parent == tmp_path / "made"
        assert temporary.suffix == ".onnx" and temporary.name != "m.onnx"
        temporary.write_bytes(b"1")


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Else a crash of the machine may leave the name with nothing behind it."""
    order = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("sync"), sync(descriptor))[1])
    monkeypatch.setattr(os, "replace", lambda *args, **kwargs: (order.append("replace"), replace(*args, **kwargs))[1])
    atomic_write(tmp_path / "a.txt", "new")
    assert order[:2] == ["sync", "replace"]


def test_others_may_read_what_was_written(tmp_path):
    atomic_write(tmp_path / "a.txt", "new")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_a_hash_is_that_of_the_whole_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def test_files_that_belong_together_share_a_stem_and_the_main_one_is_last(tmp_path, monkeypatch):
    """A reader who finds the main file finds the parts of its own version, even after a kill."""
    main, part = tmp_path / "m.xml", tmp_path / "m.bin"
    for version in ("old", "new"):
        with atomic_paths(main, part) as temporaries:
            assert [one.suffix for one in temporaries] == [".xml", ".bin"]
            assert temporaries[0].with_suffix("") == temporaries[1].with_suffix("") and all(
                map(is_temporary, temporaries)
            )
            for one in temporaries:
                one.write_text(version)
    assert main.read_text() == part.read_text() == "new" and len(os.listdir(tmp_path)) == 2

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt), atomic_paths(main, part) as temporaries:
        for one in temporaries:
            one.write_text("newest")
    assert os.listdir(tmp_path) == ["m.bin"] and part.read_text() == "new"


def test_an_error_leaves_all_files_that_belong_together(tmp_path):
    main, part = tmp_path / "m.xml", tmp_path / "m.bin"
    main.write_text("old")
    part.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_paths(main, part) as temporaries:
        temporaries[0].write_text("new")  # and its part is never written
    assert main.read_text() == part.read_text() == "old" and len(os.listdir(tmp_path)) == 2
