"""Varints, packed bytes, and a reader that trusts no length."""

import lzma
import zlib

from penjing.errors import PenjingError

STORED, DEFLATE, LZMA = range(3)
# The parameters are part of the format: a file can't ask for a larger dictionary.
_LZMA = [{"id": lzma.FILTER_LZMA1, "dict_size": 2**20, "lc": 3, "lp": 0, "pb": 0}]
_LONGEST_VARINT = 9


def varint(value: int) -> bytes:
    """Returns a non-negative integer below 2⁶³ in groups of seven bits, lowest first; the top bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack(content: bytes, *, text: bool = False) -> bytes:
    """Returns the shortest packed form: a byte for the method, the packed length, the packed bytes.

    LZMA, which packs only a few MB a second, is tried on text alone.
    """
    packed = {STORED: content, DEFLATE: _deflate(content, 9 if text else 6)}
    if text:
        packed[LZMA] = lzma.compress(content, format=lzma.FORMAT_RAW, filters=_LZMA)
    method = min(packed, key=lambda m: (len(packed[m]), m))
    return bytes([method]) + varint(len(packed[method])) + packed[method]


class ByteReader:
    """Reads bytes from front to back; whatever isn't there, or is another length than it must be, is an error."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._at = 0

    def take(self, size: int) -> memoryview:
        """Returns the next `size` bytes.

        Raises:
            PenjingError: there are fewer.
        """
        if not 0 <= size <= len(self._content) - self._at:
            raise PenjingError("it ends too early")
        self._at += size
        return self._content[self._at - size : self._at]

    def rest(self) -> memoryview:
        """Returns all that wasn't read."""
        return self.take(len(self._content) - self._at)

    def byte(self) -> int:
        """Returns the next byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """Returns the next integer."""
        value = 0
        for position in range(_LONGEST_VARINT):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * position
            if byte < 0x80:
                return value
        raise PenjingError("a number in it never ends")

    def unpack(self, size: int) -> bytes:
        """Returns the `size` bytes that the next packed bytes hold; never makes more than that.

        Raises:
            PenjingError: they hold another number of bytes.
        """
        method, packed = self.byte(), self.take(self.varint())
        if method == STORED:
            content, whole = bytes(packed), True
        elif method == DEFLATE:
            content, whole = _inflate(packed, size)
        elif method == LZMA:
            content, whole = _unlzma(packed, size)
        else:
            raise PenjingError(f"its bytes are packed in the unknown way {method}")
        if len(content) != size or not whole:
            raise PenjingError("packed bytes in it are damaged")
        return content

    def finish(self) -> None:
        """Raises unless everything was read."""
        if self._at != len(self._content):
            raise PenjingError("it goes on after its end")


def _deflate(content: bytes, level: int) -> bytes:
    deflater = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


# A limit of zero means no limit to zlib, so both ask for one byte beyond the wanted ones, which must not come.


def _inflate(packed: memoryview, size: int) -> tuple[bytes, bool]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(packed, size + 1)
    except zlib.error as error:
        raise PenjingError("packed bytes in it are damaged") from error
    return content, inflater.eof and not inflater.unused_data


def _unlzma(packed: memoryview, size: int) -> tuple[bytes, bool]:
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_LZMA)
    try:
        content = decompressor.decompress(packed, size + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise PenjingError("packed bytes in it are damaged") from error
    return content, decompressor.eof and not decompressor.unused_data
