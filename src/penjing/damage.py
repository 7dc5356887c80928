"""What reading a damaged or hostile file can raise, in one place: containers, their packers, JSON, tensors, pickles."""

import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import safetensors

from penjing.errors import PenjingError

DAMAGE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    safetensors.SafetensorError,
    pickle.UnpicklingError,
    EOFError,
    OSError,
    ValueError,  # JSON, text encodings and shapes too
    LookupError,  # a key, an index or an encoding that isn't there
    TypeError,
    AttributeError,
    ArithmeticError,  # a number beyond its type
    RuntimeError,  # PyTorch's readers, an encrypted member, nesting beyond the stack, an unknown way of packing
    MemoryError,  # a length that is larger than the file
    AssertionError,
    SyntaxError,
    NameError,
)
"""Everything that a reader raises where the bytes aren't what they should be. PyTorch and the standard library check some of
it with assertions, or not at all, so that the next line fails in another way."""


@contextmanager
def refusing(message: str) -> Iterator[None]:
    """Turns what a reader raises on damaged bytes into a PenjingError: `message`, then what was raised.

    Raises:
        PenjingError: the block raised one (passed on as it is), or one of `DAMAGE`.
    """
    try:
        yield
    except PenjingError:
        raise
    except DAMAGE as error:
        raise PenjingError(f"{message}: {described(error)}") from error


def described(error: BaseException) -> str:
    """Returns an exception's type and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
