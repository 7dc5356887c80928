"""Where the values of an array are that differ from its commonest one.

Pruned weights are not spread evenly: a network drops whole inputs (the borders of images) and nearly whole units. So rows and
columns are sorted into classes of similar density, and each pair of classes has a probability of its own. The classes are
coded too; a pair that holds nothing costs nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penjing.errors import PenjingError
from penjing.storage.compact._bytes import varint
from penjing.storage.compact._coder import PRECISION, Coded, Ints, Source, code_symbols, decode_symbols

Flags = NDArray[np.bool_]

BITS = 14  # bits of a probability
MOST_CLASSES = 16
# Bounds the number of calls that a hostile file can ask for; a model of its own doesn't pay for fewer anyway.
FEWEST_PER_PAIR = 256
_TRIED = (1, 2, 4, 8, MOST_CLASSES - 1)


@dataclass
class _Classes:
    """A class for each row (or column), and how many there are; class 0 holds those without a flag, if there are any."""

    of: Ints
    count: int

    @property
    def sizes(self) -> Ints:
        return np.bincount(self.of, minlength=self.count)

    @property
    def bytes(self) -> float:
        """What the classes themselves take, nearly."""
        share = self.sizes / max(1, len(self.of))
        return 0.0 if self.count == 1 else float(-(share * np.log2(share)).sum()) * len(self.of) / 8 + 2 * self.count


def matrix_shape(shape: tuple[int, ...], count: int) -> tuple[int, int]:
    """Rows are the first axis of a tensor with several, columns the rest."""
    return (shape[0], count // shape[0]) if len(shape) > 1 and count else (1, count)


def code_flags(flags: Flags, shape: tuple[int, ...]) -> Coded:
    """Codes a flat array of at least one flag that belongs to a tensor of that shape."""
    rows, columns = matrix_shape(shape, flags.size)
    matrix = flags.reshape(rows, columns)
    by_row, by_column = _choose(matrix)
    coded = Coded()
    coded.side += varint(by_row.count) + varint(by_column.count)
    coded.append(code_symbols(by_row.of, by_row.count))
    coded.append(code_symbols(by_column.of, by_column.count))
    ones = _ones(matrix, by_row, by_column)
    sizes = np.outer(by_row.sizes, by_column.sizes)
    frequencies = _frequencies(ones, sizes)
    coded.side += b"".join(varint(int(f)) for f in frequencies.ravel())
    for i, j in np.ndindex(frequencies.shape):
        if 0 < frequencies[i, j] < 2**BITS:
            block = matrix[np.ix_(by_row.of == i, by_column.of == j)]
            coded.send(block.ravel().astype(np.int64), _model(frequencies[i, j]))
    return coded


def decode_flags(source: Source, shape: tuple[int, ...], count: int) -> Flags:
    """Returns the flags that `code_flags` coded."""
    rows, columns = matrix_shape(shape, count)
    kinds = source.side.varint(), source.side.varint()
    pairs = kinds[0] * kinds[1]
    if not 1 <= kinds[0] <= MOST_CLASSES or not 1 <= kinds[1] <= MOST_CLASSES or not _allowed(pairs, count):
        raise PenjingError("its classes of density are damaged")
    by_row, by_column = decode_symbols(source, rows, kinds[0]), decode_symbols(source, columns, kinds[1])
    frequencies = np.array([source.side.varint() for _ in range(pairs)], np.uint64).reshape(kinds)
    if frequencies.max() > 2**BITS:
        raise PenjingError("its classes of density are damaged")
    matrix = np.zeros((rows, columns), np.bool_)
    members = [np.flatnonzero(by_row == i) for i in range(kinds[0])]
    for i, j in np.ndindex(kinds):
        chosen = np.flatnonzero(by_column == j)
        size, frequency = len(members[i]) * len(chosen), int(frequencies[i, j])
        if not size or not frequency:
            continue
        block = source.receive(size, _model(frequency)) if frequency < 2**BITS else np.ones(size, np.int32)
        matrix[np.ix_(members[i], chosen)] = block.reshape(len(members[i]), len(chosen)) > 0
    return matrix.reshape(-1)


def _allowed(pairs: int, count: int) -> bool:
    return pairs == 1 or pairs * FEWEST_PER_PAIR <= count


def _choose(matrix: Flags) -> tuple[_Classes, _Classes]:
    """Returns the classes of rows and columns that make the flags smallest."""
    rows, columns = ([_classify(matrix.sum(axis), tried) for tried in _TRIED] for axis in (1, 0))
    best, smallest = (rows[0], columns[0]), np.inf
    for by_row in rows:
        summed = _sum_rows(matrix, by_row)
        for by_column in columns:
            if not _allowed(by_row.count * by_column.count, matrix.size):
                continue
            ones = np.stack([np.bincount(by_column.of, line, by_column.count) for line in summed])
            sizes = np.outer(by_row.sizes, by_column.sizes)
            frequencies = _frequencies(ones, sizes)
            share = np.clip(frequencies / 2**BITS, 2.0**-BITS / 2, 1 - 2.0**-BITS / 2)
            mixed = (frequencies > 0) & (frequencies < 2**BITS)
            bits = np.where(mixed, -ones * np.log2(share) - (sizes - ones) * np.log2(1 - share), 0.0).sum()
            size = bits / 8 + 2 * frequencies.size + by_row.bytes + by_column.bytes
            if size < smallest:
                best, smallest = (by_row, by_column), size
    return best


def _classify(counts: Ints, wanted: int) -> _Classes:
    """Returns the empty ones in one class and the others, by their count, in up to `wanted` of about equal number."""
    if wanted == 1 and counts.size == 1:
        return _Classes(np.zeros(1, np.int64), 1)
    classes = np.zeros(len(counts), np.int64)
    if wanted > 1:
        some = np.flatnonzero(counts)
        edges = np.unique(np.quantile(counts[some], np.arange(1, wanted) / wanted)) if len(some) else np.zeros(0)
        classes[some] = 1 + np.searchsorted(edges, counts[some], side="left")
    _, dense = np.unique(classes, return_inverse=True)
    return _Classes(dense.astype(np.int64), int(dense.max()) + 1)


def _sum_rows(matrix: Flags, by_row: _Classes) -> Ints:
    """Returns, for each class of rows, how many flags each column has in it."""
    return np.stack([matrix[by_row.of == i].sum(0) for i in range(by_row.count)])


def _ones(matrix: Flags, by_row: _Classes, by_column: _Classes) -> NDArray[np.float64]:
    return np.stack([np.bincount(by_column.of, line, by_column.count) for line in _sum_rows(matrix, by_row)])


def _frequencies(ones: NDArray[np.float64], sizes: Ints) -> Ints:
    """Returns the frequency of a flag in each pair, of 2^14: 0 where there is none, 2^14 where all are."""
    share = np.clip(np.rint(ones * (2**BITS / np.maximum(sizes, 1))), 1, 2**BITS - 1).astype(np.int64)
    return np.where(ones == 0, 0, np.where(ones == sizes, 2**BITS, share))


def _model(frequency: int) -> Ints:
    return np.array([2**BITS - frequency, frequency], np.int64) << PRECISION - BITS
