"""The output folder of a run: it records the run's settings, the finished stages, and the time of each stage.

Every result that a later stage needs is a file that is written whole or not at all, so a killed run resumes behind its
last file.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from penjing import records
from penjing.errors import PenjingError
from penjing.files import atomic_write, is_temporary, left_behind, sweep
from penjing.lines import Lasting
from penjing.run.differences import differences, in_short

T = TypeVar("T")
INNER = ".penjing"
RECORD = "run.json"
EVIDENCE = "evidence"  # the folder of results of passes over the data
CANDIDATES = "candidates"  # the folder of lowered candidates; each is removed once it is measured

# The system's errors for a full disk or a missing right to write.
CAN_NOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass(frozen=True)
class EarlierContent:
    """The content of an output folder before a run takes it over.

    Attributes:
        out: the folder.
        seconds: seconds spent so far, by stage.
        without: files that count as missing, since they will be made again.
        lent: files of an earlier run that this one will begin with, by name.
    """

    out: Path
    seconds: Mapping[str, float]
    without: tuple[str, ...] = ()
    lent: Mapping[str, Path] = field(default_factory=dict)

    def path(self, file: str) -> Path:
        """Returns the path of a stage's file."""
        own = self.out / INNER / file
        return own if own.is_file() else self.lent.get(file, own)

    def has(self, *files: str) -> bool:
        """Tells whether all these files of stages exist."""
        return all(self.path(file).is_file() and file not in self.without for file in files)


def look(out: Path | str, settings: dict[str, Any], told: Mapping[str, Any] | None = None) -> EarlierContent:
    """Returns the content of `out` without writing to it.

    Args:
        out: the folder, which needn't exist.
        settings: the settings of the run that would use the folder (plain JSON).
        told: what is told of that run beside its settings; see `Workspace`.

    Raises:
        PenjingError: the folder can't be written, holds something else, or holds another run.
    """
    out = Path(out)
    try:
        check_folder(out)
        record = read_record(out)
        nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        for folder in (nearest, out / INNER):
            if folder.exists():
                with tempfile.TemporaryFile(dir=folder):  # access rights can't tell: the file system may be read-only
                    pass
    except OSError as error:
        raise PenjingError(f"Can't write to {out}: {error.strerror or error}.") from error
    if record is None:
        return EarlierContent(out, {})
    if record.key != _key(settings):
        found = differences(record.settings, settings, record.told, told or {})
        raise PenjingError(
            f"{out} holds another run ({in_short(found)}). Give another folder, remove that one, or repeat the command that "
            f"made it.{_how_to_start_from(out, record.settings, found)}"
        )
    return EarlierContent(out, record.seconds)


def _how_to_start_from(out: Path, settings: Mapping[str, Any], found: Mapping[str, str]) -> str:
    """Says how another run can begin with what a folder holds; "" where it can't."""
    if not found or {"model", "data", "solver"} & set(found) or "solver" not in settings:
        return ""
    other = out.with_name(f"{out.name}-2")
    return (
        f" Another folder needn't begin at nothing: with --from {out} --out {other} (in Python start_from='{out}', "
        f"out='{other}') a run takes over what this one measured and trained."
    )


def check_space(out: Path, needed: int) -> None:
    """Makes sure that about `needed` bytes fit on the disk of `out`; files of the run that exist already count.

    Temporary files of killed processes don't count; they are removed before anything is written.

    Raises:
        PenjingError: there is too little room.
    """
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    files = [path for path in out.rglob("*") if path.is_file()] if out.exists() else []
    there = sum(path.stat().st_size for path in files if not is_temporary(path))
    swept = sum(path.stat().st_size for folder in _folders(out) for path in left_behind(folder))
    free = shutil.disk_usage(nearest).free + swept
    if free < needed - there:
        raise PenjingError(
            f"Not enough space for {out}: about {(needed - there) / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are "
            "free. Make room, or give a folder on another disk."
        )


def _folders(out: Path) -> tuple[Path, ...]:
    """Returns the folders that a run writes into."""
    return out, out / INNER, out / INNER / CANDIDATES, out / INNER / EVIDENCE


class Workspace:
    """The output folder of one run.

    Attributes:
        out: the folder with the files for the user.
        inner: `out/.penjing`, with the files that later stages, a resumed run and `verify` need.
        seconds: seconds spent by stage, over all attempts.
        told: what is told of the run beside its settings, and doesn't change its result: where the data are, hashes of the
            files that the model came from, versions and the machine (plain JSON).
    """

    def __init__(
        self,
        out: Path | str,
        settings: dict[str, Any],
        say: Callable[[str], None] = lambda line: None,
        began: Callable[[str], None] = lambda stage: None,
        told: Mapping[str, Any] | None = None,
    ) -> None:
        """Takes the folder over for the run with these settings (plain JSON).

        `say` receives warnings of damaged files, and `began` the name of each stage that begins to do something.

        Call it under the folder's lock: temporary files that a killed run left in it are removed.

        Raises:
            PenjingError: the folder can't be written, holds something else, or holds another run.
        """
        self.seconds = dict(look(out, settings, told).seconds)
        self.out = Path(out)
        self.inner = self.out / INNER
        self.settings, self.told = settings, dict(told or {})
        self._say, self._began = say, began
        missing = [folder for folder in (self.inner, self.out, *self.out.parents) if not folder.exists()]
        try:
            self.inner.mkdir(parents=True, exist_ok=True)
            for folder in _folders(self.out):
                sweep(folder)
            self._save()
        except BaseException as error:
            for folder in missing:
                with suppress(OSError):  # the folder was never made, or isn't empty
                    folder.rmdir()
            if isinstance(error, OSError):
                raise PenjingError(f"Can't write to {self.out}: {error.strerror or error}.") from error
            raise

    def held(self) -> EarlierContent:
        """Returns the folder's current content."""
        return EarlierContent(self.out, dict(self.seconds))

    def _save(self) -> None:
        write_json(vars(RunRecord(_key(self.settings), self.settings, self.seconds, self.told)), self.inner / RECORD)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time of a `with` block to a stage's seconds, even if the block fails.

        Raises:
            PenjingError: the block couldn't write a file.
        """
        start = time.monotonic()
        self._began(stage)
        with writing(self.out):
            try:
                yield
            finally:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - start
                self._save()

    def stage(
        self,
        name: str,
        file: str,
        make: Callable[[], T],
        write: Callable[[T, Path], Any],
        read: Callable[[Path], T],
        keep: Callable[[T], bool] = lambda product: True,
    ) -> T:
        """Returns a stage's result: read from its file if the file exists and is whole, else made and written.

        Args:
            name: the stage's name, for the report.
            file: the result's path within `inner`.
            make: makes the result.
            write: writes the result to a path, whole or not at all.
            read: reads the result back; raises a PenjingError for a damaged file.
            keep: tells whether the result is final; only a final one is written.
        """
        path = self.inner / file
        if path.exists():
            try:
                return read(path)
            except PenjingError as damage:
                self._say(Lasting(f"{path} is damaged, so '{name}' is done again. {damage}"))
                path.unlink()
        with self.timed(name):
            product = make()
            if keep(product):
                write(product, path)
        return product

    def drop(self, *files: str) -> None:
        """Removes files of stages, so that these stages run again."""
        for file in files:
            (self.inner / file).unlink(missing_ok=True)

    def settle(self, decision: str, value: Any, *later: str) -> None:
        """Records a decision on which later stages depend; removes their files if they depend on another decision.

        Args:
            decision: name of the file that records the decision.
            value: the decision as plain JSON.
            later: files of later stages.
        """
        path = self.inner / decision
        text = json.dumps(value, sort_keys=True)
        if not path.is_file() or path.read_bytes() != text.encode():
            self.drop(*later)
            atomic_write(path, text)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Says of a block that writes into a run's folder what to do where it can't.

    Raises:
        PenjingError: the block couldn't write a file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in CAN_NOT_WRITE:
            raise
        raise PenjingError(
            f"{error.filename or folder}: {error.strerror}. Once that is put right, the same command goes on behind the last "
            "finished stage."
        ) from error


def check_folder(out: Path) -> None:
    """Raises an error if a path holds something else than a run's folder.

    Raises:
        PenjingError: the path is a file, or a folder with other files.
    """
    if out.exists() and not out.is_dir():
        raise PenjingError(f"{out} is a file; give a folder.")
    if out.is_dir() and not (out / INNER / RECORD).is_file() and any(path.name != INNER for path in out.iterdir()):
        raise PenjingError(f"{out} is not empty and holds no Penjing run; give a new or empty folder.")


def write_json(value: Any, path: Path) -> None:
    """Writes plain JSON, whole or not at all."""
    atomic_write(path, json.dumps(value, indent=2))


def read_json(path: Path, kind: Any = Any, *, more: bool = False) -> Any:
    """Reads JSON that an earlier stage wrote.

    Args:
        path: the file.
        kind: the type of what it holds.
        more: whether keys are ignored that the type has no fields for.

    Raises:
        PenjingError: the file is missing or damaged.
    """
    try:
        return records.convert(records.read(path), kind, more=more)
    except PenjingError as error:
        raise PenjingError(f"{path} can't be read: {error}. Remove its folder and run the command again.") from error


@dataclass(frozen=True)
class RunRecord:
    """The record of a run that its folder keeps.

    Attributes:
        key: a hash of the settings.
        settings: the settings of the run, as plain JSON.
        seconds: seconds spent so far, by stage.
        told: what is told of the run beside its settings; see `Workspace`.
    """

    key: str
    settings: dict[str, Any]
    seconds: dict[str, float]
    told: dict[str, Any] = field(default_factory=dict)


def read_record(out: Path) -> RunRecord | None:
    """Returns the record of the run that a folder holds; None where it holds none.

    Raises:
        PenjingError: the record is damaged.
    """
    path = out / INNER / RECORD
    return read_json(path, RunRecord, more=True) if path.is_file() else None


def _key(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
