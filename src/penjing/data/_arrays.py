"""Reads NumPy arrays from untrusted files: the header is checked before memory is allocated for the size that it claims."""

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from penjing.damage import DAMAGE
from penjing.data._zip import check_entry
from penjing.errors import PenjingError

MOST_BYTES = 2**30  # bytes of one array: 1.4 million images of 28 x 28
_HEADER_BYTES = 2**14  # bytes that are searched for a header; NumPy reads none of more than 10,000
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Unreadable(ValueError):
    """A file holds no plain array; the message says why."""


def read_array(stream: IO[bytes], size: int) -> np.ndarray:
    """Returns the array of one .npy file.

    Args:
        stream: the file's bytes from its start.
        size: number of those bytes.

    Raises:
        Unreadable: the file is no .npy file, holds Python objects, or the shape in its header doesn't fit its size.
    """
    begin = stream.read(_HEADER_BYTES)
    shape, columns_first, dtype, header = _header(begin)
    if dtype.hasobject:
        raise Unreadable("it holds Python objects, which can't be read without running code")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > MOST_BYTES:
        raise Unreadable(f"its header claims {claimed:,} bytes, shape {shape}, and at most {MOST_BYTES:,} are read")
    if claimed != size - header:
        raise Unreadable(f"its header claims {claimed:,} bytes, shape {shape}, and {size - header:,} are there")
    content = bytearray(begin[header:])  # an array of a bytearray can be written to
    content += stream.read(claimed - len(content))
    if len(content) != claimed:
        raise Unreadable(f"it ends after {len(content):,} of {claimed:,} bytes")
    array = np.frombuffer(content, dtype)
    return array.reshape(shape[::-1]).T if columns_first else array.reshape(shape)


def _header(begin: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Returns the shape, whether columns come first, the dtype, and where the values begin."""
    stream = io.BytesIO(begin)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise Unreadable(f"it has version {version} of the .npy format, and 1.0 and 2.0 are read")
        shape, columns_first, dtype = _HEADERS[version](stream)
    except Unreadable:
        raise
    except Exception as error:  # NumPy evaluates the header as a Python literal, which fails in many ways
        raise Unreadable(f"it has no header of a .npy file ({type(error).__name__})") from error
    if any(size < 0 for size in shape):
        raise Unreadable(f"its header claims the shape {shape}")
    return shape, columns_first, dtype, stream.tell()


def read_arrays(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the arrays of a .npz file that `keys` names.

    Raises:
        PenjingError: the file can't be read, lacks one of the arrays, or holds something else under that name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            missing = [key for key in keys if key not in entries]
            if missing:
                raise PenjingError(f"{path} has no {', '.join(missing)}; it has {', '.join(entries) or 'nothing'}.")
            return {key: _read(path, archive, entries[key]) for key in keys}
    except DAMAGE as error:
        raise PenjingError(f"{path} isn't a NumPy .npz file of plain arrays ({error}).") from error


def _read(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    check_entry(path, entry, MOST_BYTES + _HEADER_BYTES)
    with archive.open(entry) as stream:
        try:
            return read_array(stream, entry.file_size)
        except Unreadable as error:
            raise Unreadable(f"{entry.filename}: {error}") from error
