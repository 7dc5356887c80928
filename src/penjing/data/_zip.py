"""Checks entries of untrusted zips before they are read."""

import zipfile
from pathlib import Path

from penjing.errors import PenjingError

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # headers of other methods may ask for gigabytes of memory


def check_entry(path: Path, entry: zipfile.ZipInfo, most: int) -> None:
    """Refuses an entry that would unpack to too many bytes, or whose method of compression isn't read.

    The size in the entry's header is enough to check, since `zipfile` reads no more of an entry than its header claims.

    Args:
        path: path of the zip, for the message.
        entry: the entry of the zip.
        most: bytes that the entry may unpack to.

    Raises:
        PenjingError: the entry would unpack to more, or is compressed by another method.
    """
    if entry.compress_type not in _COMPRESSIONS:
        raise PenjingError(
            f"{path}: {entry.filename!r} is neither stored nor deflated (its method has the number "
            f"{entry.compress_type}): pack it again as a usual zip."
        )
    if entry.file_size > most:
        raise PenjingError(
            f"{path}: {entry.filename!r} would unpack to {entry.file_size:,} bytes, more than the {most:,} that are read."
        )
