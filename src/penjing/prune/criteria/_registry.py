"""The table of criteria."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from penjing.prune.evidence import Evidence
from penjing.registry import Registry

Criterion = Callable[[Evidence], Any]
"""`level="weight"`: returns {parameter name: saliency of its shape}; `level="unit"`: one `(units,)` tensor per group."""

criteria: Registry[Criterion] = Registry("criterion")


def makers(evidence: Evidence) -> dict[str, Tensor]:
    """Returns the weights to score, by name: those that make removable channels, of removable branches, or all."""
    names = dict.fromkeys(name for group in evidence.groups for name in group.made_by())
    names |= dict.fromkeys(name for branch in evidence.branches for name in branch.weights)
    names |= dict.fromkeys(evidence.weights)
    return {name: evidence.graph.tensor(name).detach() for name in names}
