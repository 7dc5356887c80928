"""Decompositions, one per file: each writes a weight as the weights of a chain of smaller layers."""

from penjing.factorization.decompositions import _cp, _spatial, _svd, _tt, _tucker2  # noqa: F401  registers
from penjing.factorization.decompositions._registry import (
    Decomposition,
    FactorLayer,
    FactorShape,
    composed,
    decompositions,
    find,
)

__all__ = ["Decomposition", "FactorLayer", "FactorShape", "composed", "decompositions", "find"]
