"""The forms of ONNX's ops in PyTorch, in groups of one file each."""

from penjing.importing.onnx.ops import (
    activations,
    arithmetic,
    indexing,
    layers,
    pooling,
    quantised,
    recurrent,
    reduction,
    scikit,
    shaping,
    sizes,
)  # fmt: skip
from penjing.importing.onnx.ops.table import FORMS, SIZES

__all__ = [
    "FORMS", "SIZES", "activations", "arithmetic", "indexing", "layers", "pooling", "quantised", "recurrent", "reduction",
    "scikit", "shaping", "sizes",
]  # fmt: skip
