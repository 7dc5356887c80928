"""Writing files so that nobody ever sees half of one."""

import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A temporary file's name says whose it is: ".", the beginning of the name that it will get, the process, the machine, some
# random letters, ".tmp", and the suffix that it will get, since some writers look at that.
_TEMPORARY = re.compile(r"\.(?P<name>.*)\.(?P<process>\d+)-(?P<machine>[0-9a-f]{8})-\w+\.tmp(?:\.[^.]*)?", re.DOTALL)
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
SHOWN = 50  # characters of a name that its temporary file repeats: file systems allow 255 bytes
ABANDONED = 24 * 3600.0  # seconds after which a temporary file of another machine, which can't be asked, is nobody's
_in_use: set[Path] = set()  # of this process


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` on success, removes it on any failure.

    A process that is killed leaves it behind; `sweep` removes it then.
    """
    with atomic_paths(path) as (temporary,):
        yield temporary


@contextmanager
def atomic_paths(main: Path | str, *others: Path | str) -> Iterator[tuple[Path, ...]]:
    """Yields temporary paths for files of one folder that belong together, with one stem; renames all on success.

    The main file is the last that gets its name, and an old one goes before the others get theirs. So a process that is killed
    in between leaves no main file beside parts of another version. On any failure before, all old files stay.
    """
    paths = [Path(path) for path in (main, *others)]
    folder = paths[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f".{paths[0].stem[:SHOWN]}.{os.getpid()}-{_MACHINE}-"
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=f".tmp{paths[0].suffix}", dir=folder)
    os.close(descriptor)
    stem = name.removesuffix(paths[0].suffix) if paths[0].suffix else name
    temporaries = (Path(name), *(Path(stem + path.suffix) for path in paths[1:]))
    _in_use.update(temporary.absolute() for temporary in temporaries)
    try:
        yield temporaries
        for temporary in temporaries:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
        if len(paths) > 1:
            paths[0].unlink(missing_ok=True)
        for temporary, path in reversed(list(zip(temporaries, paths, strict=True))):
            temporary.replace(path)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
            _in_use.discard(temporary.absolute())


def temporary_folder(name: str) -> Path:
    """Makes a folder of this process among the system's temporary ones, and removes those of this name that are `left_behind`.

    `remove_folder` removes it; a process that is killed leaves it to the next one. On Windows such folders stay: nothing tells
    there whether their process lives, and it would lose the files that it hasn't open.

    Args:
        name: what the folder is for; it stands in the folder's name.
    """
    parent = Path(tempfile.gettempdir())
    if sys.platform != "win32":
        for left in left_behind(parent, name):
            remove_folder(left)
    made = Path(tempfile.mkdtemp(prefix=f".{name[:SHOWN]}.{os.getpid()}-{_MACHINE}-", suffix=".tmp", dir=parent))
    _in_use.add(made.absolute())
    return made


def remove_folder(folder: Path) -> None:
    """Removes a folder that `temporary_folder` made; what another process still writes stays, and is removed later."""
    shutil.rmtree(folder, ignore_errors=True)
    _in_use.discard(folder.absolute())


def is_temporary(path: Path) -> bool:
    """Whether a file's name is one that `atomic_path` gave."""
    return _TEMPORARY.fullmatch(path.name) is not None


def left_behind(folder: Path, name: str | None = None) -> list[Path]:
    """Returns the temporary files in a folder whose process is gone: it was killed, since else it had removed them.

    Args:
        folder: it isn't searched deeper, and needn't exist.
        name: only those that were to become a file of this name without its suffix (`Path.stem`); None for all.
    """
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        owner = _TEMPORARY.fullmatch(path.name)
        if owner is not None and (name is None or owner["name"] == name[:SHOWN]) and _is_gone(path, owner):
            found.append(path)
    return found


def sweep(folder: Path, name: str | None = None) -> None:
    """Removes what `left_behind` gives."""
    for path in left_behind(folder, name):
        with suppress(
            OSError
        ):  # Windows keeps what is open; nobody needs the room so much that a run should end for it
            path.unlink()


def _is_gone(path: Path, owner: re.Match[str]) -> bool:
    if owner["machine"] != _MACHINE:
        with suppress(OSError):
            return time.time() - path.stat().st_mtime > ABANDONED
        return False
    if int(owner["process"]) == os.getpid():  # in a container, the next process often gets the number of the last
        return path.absolute() not in _in_use
    if sys.platform == "win32":  # where asking for a process may end it; what it has open can't be removed there
        return True
    try:
        os.kill(int(owner["process"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # of another user; no number that a process can have
        return False
    return False


def atomic_write(path: Path | str, content: bytes | str) -> None:
    """Writes `content` to `path` through a temporary file beside it."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256(path: Path | str) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Returns the folder of what is kept between runs: `$PENJING_CACHE`, or else `~/.cache/penjing`. It may be deleted."""
    folder = os.environ.get("PENJING_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "penjing"
