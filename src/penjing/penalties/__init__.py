"""Penalties: terms of the loss that shape weights while they train, so that less is lost when they are cut. One file each.

A penalty looks at the graph alone, never at data, so that pruning, factorising and training can all use it.
"""

from penjing.penalties import _group_lasso, _nuclear_norm, _orthogonal, _subspace  # noqa: F401  registers
from penjing.penalties._bn_scale import bn_scale
from penjing.penalties._registry import ChosenPenalty, Penalty, PenaltyEntry, find, penalties
from penjing.penalties._structure import Structure, structure_of

__all__ = [
    "ChosenPenalty",
    "Penalty",
    "PenaltyEntry",
    "Structure",
    "bn_scale",
    "find",
    "penalties",
    "structure_of",
]
