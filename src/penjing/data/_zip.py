"""Zips of strangers: what of them is read."""

import zipfile
from pathlib import Path

from penjing.errors import PenjingError

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others' headers may ask for gigabytes of memory


def check_entry(path: Path, entry: zipfile.ZipInfo, most: int) -> None:
    """Refuses an entry that isn't to be read; `zipfile` reads no more of an entry than its header claims.

    Args:
        path: of the zip.
        entry: of the zip.
        most: bytes that it may unpack to.

    Raises:
        PenjingError: it would unpack to more, or is compressed by a method that isn't read.
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
