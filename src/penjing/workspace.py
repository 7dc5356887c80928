"""The folder that a run writes into: which run it belongs to, what is finished, and how long each stage took.

Everything that a later stage needs is in a file, written whole; so a run that was killed goes on behind its last file.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from penjing.errors import PenjingError
from penjing.files import atomic_write

T = TypeVar("T")
INNER = ".penjing"
RECORD = "run.json"

# What the system says when it is the disk or a right to write that is missing.
CAN_NOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})


class Workspace:
    """The output folder of one run.

    Attributes:
        out: what the user gets.
        inner: `out/.penjing`, what later stages, a resumed run and `verify` need.
        seconds: time spent per stage, over all attempts.
    """

    def __init__(self, out: Path | str, settings: dict[str, Any]) -> None:
        """Takes the folder for the run with these settings (plain JSON).

        Raises:
            PenjingError: the folder can't be written, holds something else, or holds another run.
        """
        self.out = Path(out)
        self.inner = self.out / INNER
        self._file = self.inner / RECORD
        self.settings = settings
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.seconds: dict[str, float] = {}
        missing = [folder for folder in (self.inner, self.out, *self.out.parents) if not folder.exists()]
        try:
            self._claim(key)
        except BaseException as error:
            for folder in missing:
                with suppress(OSError):  # never made, or not empty
                    folder.rmdir()
            if isinstance(error, OSError):
                raise PenjingError(f"Can't write to {self.out}: {error.strerror or error}.") from error
            raise

    def _claim(self, key: str) -> None:
        check_folder(self.out)
        if self._file.is_file():
            record = read_json(self._file)
            if not isinstance(record, dict) or not {"key", "settings", "seconds"} <= record.keys():
                raise PenjingError(f"{self._file} can't be read: it is no record of a run. Remove {self.out}.")
            if record["key"] != key:
                raise PenjingError(
                    f"{self.out} holds another run ({_difference(record['settings'], self.settings)}). "
                    "Give another folder, remove that one, or repeat the command that made it."
                )
            self.seconds = dict(record["seconds"])
        self.inner.mkdir(parents=True, exist_ok=True)
        if not os.access(self.out, os.W_OK) or not os.access(self.inner, os.W_OK):
            raise PenjingError(f"No right to write in {self.out}.")
        self._key = key
        self._save()

    def _save(self) -> None:
        atomic_write(
            self._file, json.dumps({"key": self._key, "settings": self.settings, "seconds": self.seconds}, indent=2)
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time of a block to a stage's seconds, also when it fails.

        Raises:
            PenjingError: a file couldn't be written in it.
        """
        start = time.monotonic()
        try:
            try:
                yield
            finally:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - start
                self._save()
        except OSError as error:
            if error.errno not in CAN_NOT_WRITE:
                raise
            raise PenjingError(
                f"{error.filename or self.out}: {error.strerror}. Once that is put right, the same command goes on behind "
                "the last finished stage."
            ) from error

    def stage(
        self, name: str, file: str, make: Callable[[], T], write: Callable[[T, Path], Any], read: Callable[[Path], T]
    ) -> T:
        """Returns a stage's product: read from its file if that is there, else made and written.

        Args:
            name: of the stage, for the report.
            file: where its product is kept, within `inner`.
            make: does the work.
            write: writes the product to a path, whole or not at all.
            read: reads it back.
        """
        path = self.inner / file
        if path.exists():
            return read(path)
        with self.timed(name):
            product = make()
            write(product, path)
        return product


def check_folder(out: Path) -> None:
    """Refuses a path that no run can write to because something else is there.

    Raises:
        PenjingError: it is a file, or a folder with files of another kind.
    """
    if out.exists() and not out.is_dir():
        raise PenjingError(f"{out} is a file; give a folder.")
    if out.is_dir() and not (out / INNER / RECORD).is_file() and any(path.name != INNER for path in out.iterdir()):
        raise PenjingError(f"{out} is not empty and holds no Penjing run; give a new or empty folder.")


def write_json(value: Any, path: Path) -> None:
    """Writes plain JSON, whole or not at all."""
    atomic_write(path, json.dumps(value, indent=2))


def read_json(path: Path) -> Any:
    """Reads JSON that an earlier stage wrote.

    Raises:
        PenjingError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PenjingError(f"{path} can't be read: {error}. Remove its folder and run the command again.") from error


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Names the first settings in which two runs differ."""
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    shown = [f"{name} was {old.get(name)!r} and is {new.get(name)!r}" for name in names[:3]]
    return "; ".join(shown) or "made by another version"
