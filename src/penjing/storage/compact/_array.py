"""One array of bit patterns, in the smallest of four forms.

Values are unsigned integers of 1, 2, 4 or 8 bytes, which are the bits of whatever they were: so every NaN and the sign of
every zero comes back. Two choices are independent of each other:

    commonest value apart    flags say where it stands (_flags), and only the other values follow
    table                    the values that follow are indices into a table of at most 4,096, entropy-coded;
                             otherwise they are raw, their bytes sorted by significance and packed
"""

import numpy as np
from numpy.typing import NDArray

from penjing.errors import PenjingError
from penjing.storage.compact._bytes import pack, varint
from penjing.storage.compact._coder import Coded, Source, code_symbols, decode_symbols
from penjing.storage.compact._flags import Flags, code_flags, decode_flags

Patterns = NDArray[np.unsignedinteger]

APART, TABLE = 1, 2
LARGEST_TABLE = 4096
PATTERN_DTYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_SAMPLE = 2**16
_WORTH_IT = 16  # a value in fewer than one of so many places isn't coded separately


def code_array(patterns: Patterns, shape: tuple[int, ...]) -> Coded:
    """Codes a flat array that belongs to a tensor of that shape. An empty one takes nothing."""
    if not patterns.size:
        return Coded()
    candidates = [_form(patterns, shape, None, None)]
    if _may_be_few(patterns):
        table, counts = np.unique(patterns, return_counts=True)
        if len(table) <= LARGEST_TABLE:
            candidates.append(_form(patterns, shape, None, table))
        common = int(table[counts.argmax()])
    else:
        common = 0  # what pruning leaves
    apart = patterns != common
    if apart.sum() * _WORTH_IT <= apart.size * (_WORTH_IT - 1):
        rest = patterns[apart]
        candidates.append(_form(patterns, shape, common, None))
        if _may_be_few(rest) and len(few := np.unique(rest)) <= LARGEST_TABLE:
            candidates.append(_form(patterns, shape, common, few))
    return min(candidates, key=lambda coded: coded.size)


def decode_array(source: Source, width: int, shape: tuple[int, ...], count: int) -> Patterns:
    """Returns the `count` patterns of `width` bytes that `code_array` coded."""
    if not count:
        return np.zeros(0, PATTERN_DTYPES[width])
    form = source.side.byte()
    if form & ~(APART | TABLE):
        raise PenjingError(f"it holds an array in the unknown form {form}")
    if not form & APART:
        return _decode_values(source, width, count, bool(form & TABLE))
    common = int.from_bytes(source.side.take(width), "little")
    flags = decode_flags(source, shape, count)
    patterns = np.full(count, common, PATTERN_DTYPES[width])
    patterns[flags] = _decode_values(source, width, int(flags.sum()), bool(form & TABLE))
    return patterns


def _may_be_few(patterns: Patterns) -> bool:
    """Tells from a sample whether the array can have few values, since sorting large ones takes seconds."""
    sample = patterns[:: max(1, patterns.size // _SAMPLE)]
    return len(np.unique(sample)) <= LARGEST_TABLE


def _form(patterns: Patterns, shape: tuple[int, ...], common: int | None, table: Patterns | None) -> Coded:
    coded = Coded()
    coded.side.append((APART if common is not None else 0) | (TABLE if table is not None else 0))
    values = patterns
    if common is not None:
        flags: Flags = patterns != common
        coded.side += common.to_bytes(patterns.itemsize, "little")
        coded.append(code_flags(flags, shape))
        values = patterns[flags]
    if not values.size:
        return coded
    if table is None:
        coded.blob += pack(_by_significance(values))
        return coded
    coded.side += varint(len(table))
    coded.blob += pack(_by_significance(np.diff(table, prepend=table.dtype.type(0))))
    coded.append(code_symbols(np.searchsorted(table, values), len(table)))
    return coded


def _decode_values(source: Source, width: int, count: int, tabled: bool) -> Patterns:
    if not count:
        return np.zeros(0, PATTERN_DTYPES[width])
    if not tabled:
        return _from_significance(source.blob.unpack(count * width), width)
    entries = source.side.varint()
    if not 1 <= entries <= min(LARGEST_TABLE, count):
        raise PenjingError(f"it holds a table of {entries} values for {count}")
    gaps = _from_significance(source.blob.unpack(entries * width), width)
    table = np.add.accumulate(gaps, dtype=gaps.dtype)
    return table[decode_symbols(source, count, entries)]


def _by_significance(values: Patterns) -> bytes:
    """Returns the lowest bytes of all values, then the second lowest, …: signs and exponents of floats stand together."""
    return values.astype(values.dtype.newbyteorder("<")).view(np.uint8).reshape(-1, values.itemsize).T.tobytes()


def _from_significance(content: bytes, width: int) -> Patterns:
    planes = np.frombuffer(content, np.uint8).reshape(width, -1)
    little = np.ascontiguousarray(planes.T).reshape(-1).view(np.dtype(PATTERN_DTYPES[width]).newbyteorder("<"))
    return little.astype(PATTERN_DTYPES[width])
