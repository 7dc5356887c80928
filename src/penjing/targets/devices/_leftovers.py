"""Temporary folders on devices, none of which is left behind: what a lost connection leaves is removed at the next contact."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from penjing.errors import PenjingError
from penjing.files import atomic_path, cache_folder, left_behind
from penjing.targets.devices._connection import Connection, Unreachable

SECONDS = 30.0  # for making or removing a folder
_OURS = re.compile(r"[\w/.-]*/penjing-[0-9a-f]{32}")


@contextmanager
def folder_on(device: str, connection: Connection) -> Iterator[str]:
    """Gives a new folder of the device, readable by its user alone, and removes it with all that it holds.

    Where that fails, or this process is killed, a note in the folder of the cache tells the next contact to do it.

    Args:
        device: the device's address.
        connection: the way to it.

    Raises:
        Unreachable: the device doesn't answer.
        PenjingError: the folder can't be made there.
    """
    notes = cache_folder() / "devices" / sha256(device.encode()).hexdigest()[:16]
    notes.mkdir(parents=True, exist_ok=True)
    _remove_left(connection, notes)
    folder = f"{connection.folder}/penjing-{uuid.uuid4().hex}"
    note = notes / folder.rpartition("/")[2]
    removed = False
    with atomic_path(note) as alive:  # a note of this form counts once its process is gone
        alive.write_text(folder)
        try:
            code, _, error = connection.run(f"mkdir -m 700 {folder}", SECONDS)
        except BaseException:  # the folder may have been made, and only the answer was lost
            note.write_text(folder)
            raise
        if code != 0:
            raise PenjingError(f"No folder can be made at {folder} on {device}: {error}")
        try:
            yield folder
        finally:
            removed = _remove(connection, folder)
            if not removed:
                note.write_text(folder)
    if removed:
        note.unlink(missing_ok=True)


def _remove_left(connection: Connection, notes: Path) -> None:
    """Removes the folders that notes name, and the notes. It ends where the device doesn't answer, as every folder would wait."""
    kept = [path for path in notes.iterdir() if re.fullmatch(r"penjing-[0-9a-f]{32}", path.name)]
    for note in (*kept, *left_behind(notes)):
        try:
            folder = note.read_text()
        except FileNotFoundError:  # another process has removed it meanwhile
            continue
        if not _OURS.fullmatch(folder) or connection.run(f"rm -rf {folder}", SECONDS)[0] == 0:
            note.unlink(missing_ok=True)


def _remove(connection: Connection, folder: str) -> bool:
    try:
        return connection.run(f"rm -rf {folder}", SECONDS)[0] == 0
    except Unreachable:
        return False
