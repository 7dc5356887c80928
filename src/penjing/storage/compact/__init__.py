"""Entropy-coded `.penjing` files: the last stage of Han, Mao and Dally, "Deep Compression" (ICLR 2016).

Turns what a file holds (a description, tensors, a plan) into few bytes and back, bit for bit; knows nothing of graphs.
The layout stands in docs/compact-format.md.

    _bytes    varints, packed bytes, and a reader that trusts no length
    _coder    integer frequencies and the entropy coder
    _flags    where the values are that differ from the commonest one
    _array    one array of bit patterns, in the smallest of four forms
    _scaled   floats that are a scale times an integer
    _file     the file
"""

from penjing.storage.compact._file import LARGEST_DEFAULT, LARGEST_RATIO, MAGIC, VERSION, decode, encode, is_compact

__all__ = ["LARGEST_DEFAULT", "LARGEST_RATIO", "MAGIC", "VERSION", "decode", "encode", "is_compact"]
