"""Rows or columns within kernels."""

from typing import Any

from torch import Tensor

from penjing.pruning.granularities._registry import granularities


def _read(name: str) -> dict[str, Any] | None:
    return {"vector": {}, "vector:row": {}, "vector:column": {"column": True}}.get(name)


@granularities.register(
    source="Mao et al., Exploring the Regularity of Sparse Structure in Convolutional Neural Networks, 2017",
    removes="weights",
    kernels=True,
    read=_read,
)
def vector(weight: Tensor, column: bool = False) -> Tensor | None:
    """Vectors: a row of a kernel ("vector:column": a column) stands or falls together."""
    if weight.dim() < 4:
        return None
    return (weight.transpose(-1, -2) if column else weight).flatten(0, -2)
