"""ONNX files, which several runtimes read: writes a graph as such a file.

This is no target: each of those runtimes is one, and calls `write`.
"""

from penjing.targets.onnx._failure import failure
from penjing.targets.onnx._half import store_half
from penjing.targets.onnx._names import origin
from penjing.targets.onnx._refusals import WAYS, other_floats
from penjing.targets.onnx._write import METADATA, write

__all__ = ["METADATA", "WAYS", "failure", "origin", "other_floats", "store_half", "write"]
