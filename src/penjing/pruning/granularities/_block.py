"""Rectangles of the weight matrix."""

import re

from torch import Tensor

from penjing.pruning.granularities._registry import granularities


def _read(name: str) -> dict[str, int] | None:
    found = re.fullmatch(r"block:([1-9]\d*)x([1-9]\d*)", name)
    return {"rows": int(found[1]), "columns": int(found[2])} if found else None


@granularities.register(
    source="Gray et al., GPU Kernels for Block-Sparse Weights, 2017", removes="weights", read=_read, example="block:4x4"
)
def block(weight: Tensor, rows: int, columns: int) -> Tensor | None:
    """Blocks ("block:4x4"): r×c tiles of the matrix of output channels × (input channels · kernel) stand or fall together."""
    matrix = weight.flatten(1)
    if matrix.shape[0] % rows or matrix.shape[1] % columns:
        return None
    return matrix.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).transpose(1, 2).reshape(-1, rows * columns)
