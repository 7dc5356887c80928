"""The entropy coder: asymmetric numeral systems (Duda et al., 2015), through `constriction`, with integer frequencies.

`constriction` turns the weights of a categorical model into fixed-point frequencies: it gives each of n symbols 1 of 2²⁴,
and shares the remaining 2²⁴ − n out in proportion to the weights. A weight of F − 1 for a frequency of F makes that share a
factor of exactly 1, and every number on the way a whole one below 2²⁴, which floating point holds exactly. So the coder
works with just the frequencies of the file, on every machine, and a decoder needs nothing but integers.
"""

from dataclasses import dataclass, field

import constriction
import numpy as np
from numpy.typing import NDArray

from penjing.errors import PenjingError
from penjing.storage.compact._bytes import ByteReader, varint

Ints = NDArray[np.int64]

PRECISION = 24  # bits: frequencies sum to 2**PRECISION
FEWEST_BITS, MOST_BITS = 1, 16  # bits of the frequencies in a file


@dataclass
class Coded:
    """Something coded: three pieces of the three streams of a file, of which the last isn't yet turned to bytes.

    Attributes:
        side: small numbers that steer the decoder.
        blob: packed bytes.
        messages: symbols with their frequencies, which sum to 2²⁴, in the order of decoding.
        bits: what the messages will take.
    """

    side: bytearray = field(default_factory=bytearray)
    blob: bytearray = field(default_factory=bytearray)
    messages: list[tuple[NDArray[np.int32], Ints]] = field(default_factory=list)
    bits: float = 0.0

    def send(self, symbols: Ints, frequencies: Ints) -> None:
        """Appends symbols, coded with `frequencies`."""
        self.messages.append((symbols.astype(np.int32), frequencies))
        counts = np.bincount(symbols, minlength=len(frequencies))
        self.bits += float((counts * (PRECISION - np.log2(frequencies))).sum())

    def append(self, other: "Coded") -> None:
        """Appends all of `other`."""
        self.side += other.side
        self.blob += other.blob
        self.messages += other.messages
        self.bits += other.bits

    @property
    def size(self) -> float:
        """The bytes that this takes in a file, before `side` is packed."""
        return len(self.side) + len(self.blob) + self.bits / 8


@dataclass
class Source:
    """The three streams of a file while it is decoded."""

    side: ByteReader
    blob: ByteReader
    coder: constriction.stream.stack.AnsCoder

    def receive(self, count: int, frequencies: Ints) -> NDArray[np.int32]:
        """Returns the next `count` symbols."""
        symbols: NDArray[np.int32] = self.coder.decode(_model(frequencies), count)
        return symbols

    def finish(self) -> None:
        """Raises unless everything was read. What was coded leaves the coder as it began: a check of the whole message."""
        self.side.finish()
        self.blob.finish()
        if not self.coder.is_empty():
            raise PenjingError("its coded values are damaged")


def words_of(coded: Coded) -> bytes:
    """Turns the messages into bytes: 32-bit words, lowest byte first."""
    coder = constriction.stream.stack.AnsCoder()
    for symbols, frequencies in reversed(coded.messages):  # the coder is a stack
        coder.encode_reverse(symbols, _model(frequencies))
    words: bytes = coder.get_compressed().astype("<u4").tobytes()
    return words


def coder_of(words: memoryview) -> constriction.stream.stack.AnsCoder:
    """Returns a coder that decodes what `words_of` wrote.

    Raises:
        PenjingError: no coder writes such words.
    """
    array = np.frombuffer(words, "<u4").astype(np.uint32)
    if len(array) and not array[-1]:
        raise PenjingError("its coded values are damaged")
    return constriction.stream.stack.AnsCoder(array)


def _model(frequencies: Ints) -> constriction.stream.model.Categorical:
    if len(frequencies) < 2 or frequencies.min() < 1 or frequencies.sum() != 2**PRECISION:
        raise PenjingError("frequencies in it are damaged")
    return constriction.stream.model.Categorical((frequencies - 1).astype(np.float64), lazy=False, perfect=False)


# Frequencies of an alphabet


def code_symbols(symbols: Ints, alphabet: int) -> Coded:
    """Codes symbols below `alphabet`, of which each occurs, with frequencies fitted to them.

    The side gets the number of bits of the frequencies, then each frequency less one; the last one is what remains.
    """
    coded = Coded()
    if alphabet == 1:
        return coded
    counts = np.bincount(symbols, minlength=alphabet)
    fewest = max(FEWEST_BITS, (alphabet - 1).bit_length())
    best = None
    for bits in range(fewest, MOST_BITS + 1):
        frequencies = _fit(counts, bits)
        header = bytes([bits]) + b"".join(varint(int(f) - 1) for f in frequencies[:-1])
        size = len(header) + float((counts * (bits - np.log2(frequencies))).sum()) / 8
        if best is None or size < best[0]:
            best = size, header, frequencies << PRECISION - bits
    assert best is not None  # an alphabet has at most 2¹⁶ symbols
    coded.side += best[1]
    coded.send(symbols, best[2])
    return coded


def decode_symbols(source: Source, count: int, alphabet: int) -> NDArray[np.int32]:
    """Returns the `count` symbols that `code_symbols` coded."""
    if alphabet == 1:
        return np.zeros(count, np.int32)
    bits = source.side.byte()
    if not FEWEST_BITS <= bits <= MOST_BITS or alphabet > 2**bits:
        raise PenjingError("frequencies in it are damaged")
    frequencies = [source.side.varint() + 1 for _ in range(alphabet - 1)]
    last = 2**bits - sum(frequencies)
    if last < 1:
        raise PenjingError("frequencies in it are damaged")
    return source.receive(count, np.array([*frequencies, last], np.int64) << PRECISION - bits)


def _fit(counts: Ints, bits: int) -> Ints:
    """Returns frequencies of at least 1 that sum to 2^`bits`, nearly in proportion to `counts`."""
    total = 2**bits
    frequencies = np.maximum(1, np.rint(counts * (total / counts.sum()))).astype(np.int64)
    while excess := int(frequencies.sum()) - total:
        # Costs least where a count is smallest for its frequency (taking), largest (giving).
        room = np.maximum(frequencies - 1, 0) if excess > 0 else frequencies
        rank = np.where(room > 0, counts / frequencies, np.inf) if excess > 0 else -counts / frequencies
        order = np.argsort(rank, kind="stable")[: min(abs(excess), int((room > 0).sum()))]
        frequencies[order] -= int(np.sign(excess))
    return frequencies
