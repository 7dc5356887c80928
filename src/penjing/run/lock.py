"""Reserves a folder for one command at a time by an advisory lock, which the system releases however the command ends."""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from penjing.errors import PenjingError

LOCK = "lock"
# Some network file systems have no locks; there, a warning is all that is possible.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})

log = logging.getLogger(__name__)

if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> None:
        """Locks a byte behind the file's content, since other processes can't read a locked byte."""
        os.lseek(descriptor, 4096, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    HELD = (PermissionError, BlockingIOError)
else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    HELD = (BlockingIOError,)


@contextmanager
def locked(folder: Path, shown: Path) -> Iterator[None]:
    """Keeps other commands out of a folder while the block runs; makes the folder if it isn't there.

    A lock that a dead process left behind doesn't count. Afterwards the lock's file is gone, and so are the folders that
    were made for it, if they stayed empty.

    Args:
        folder: where the lock's file lies.
        shown: the folder's name in errors.

    Raises:
        PenjingError: another process holds the lock (the message gives its number), or the folder can't be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / LOCK
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = _open(path, shown)
        except OSError as error:
            raise PenjingError(f"Can't write to {shown}: {error.strerror or error}.") from error
        try:
            yield
        finally:
            if sys.platform != "win32":  # Windows can't remove an open file
                path.unlink(missing_ok=True)
            os.close(descriptor)
            if sys.platform == "win32":
                with suppress(OSError):  # another process has opened the file already
                    path.unlink(missing_ok=True)
    finally:
        for each in made:
            with suppress(OSError):  # the folder was never made, or isn't empty
                each.rmdir()


def _open(path: Path, shown: Path) -> int:
    """Returns the locked file's descriptor, with this process's number in the file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(descriptor)
            if not _is_at(descriptor, path):  # the owner removed the file meanwhile
                os.close(descriptor)
                continue
        except HELD:
            owner = os.read(descriptor, 20).decode(errors="replace").strip()
            os.close(descriptor)
            who = f"process {owner}" if owner else "another process"
            raise PenjingError(
                f"{shown} is in use by another Penjing command ({who}). Wait until it ends, or give another folder."
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            log.warning("%s lies on a file system without locks: don't use it from two commands at once.", shown)
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, str(os.getpid()).encode())
        return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
