"""The table of criteria."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from penjing.evidence import Evidence
from penjing.registry import Entry, Registry

Criterion = Callable[[Evidence], Any]
"""A function from evidence to saliencies, in the form that the entry's `level` says, or to `Compensated`."""


@dataclass(frozen=True)
class Compensated:
    """Saliencies, together with functions that update the remaining weights once it is known what goes.

    Attributes:
        saliency: what a criterion without an update returns.
        units: function from the units that go, by their group's position, to new weights by name, of the sizes before the
            removal.
        weights: function from masks by name (False is pruned) to new weights by name.
    """

    saliency: Any
    units: Callable[[Mapping[int, np.ndarray]], dict[str, Tensor]] | None = None
    weights: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None


@dataclass(frozen=True, kw_only=True)
class CriterionEntry(Entry[Criterion]):
    """A registered criterion.

    Attributes:
        level: what the criterion scores. "weight": the function returns {parameter name: saliency of its shape}; "unit":
            one `(units,)` tensor per group.
        finish: the last step, which takes the summed saliencies of weights that go together; None where the sum is the
            score.
        branches: whether a criterion of units scores residual branches, too: where the evidence has branches, it returns one
            `(branches,)` tensor. A criterion of weights always can.
    """

    level: Literal["weight", "unit"]
    finish: Callable[[Tensor], Tensor] | None = None
    branches: bool = False

    def can_score(self, removes: Literal["channels", "branches", "weights"]) -> bool:
        """Tells whether the criterion can score channels, whole branches or single weights."""
        return self.level == "weight" or removes == "channels" or (removes == "branches" and self.branches)


criteria = Registry("criterion", CriterionEntry)


def makers(evidence: Evidence) -> dict[str, Tensor]:
    """Returns the weights to score, by name: those that make removable channels, lie in removable branches, or can be masked."""
    names = dict.fromkeys(name for group in evidence.groups for name in group.made_by())
    names |= dict.fromkeys(name for branch in evidence.branches for name in branch.weights)
    names |= dict.fromkeys(evidence.weights)
    return {name: evidence.graph.tensor(name).detach() for name in names}


class SaliencyOnAccess(Mapping[str, Tensor]):
    """Saliencies that depend on the weight alone, computed when they are read: all at once would be as large as the model."""

    def __init__(self, evidence: Evidence, function: Callable[[Tensor], Tensor]) -> None:
        self._weights, self._function = makers(evidence), function

    def __getitem__(self, name: str) -> Tensor:
        return self._function(self._weights[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
