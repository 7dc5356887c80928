"""Trained networks from ONNX files. `ops/` holds the form of each op, in groups of one file each."""

from penjing.importing.onnx.door import from_onnx, read_onnx

__all__ = ["from_onnx", "read_onnx"]
