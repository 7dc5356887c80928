"""The table of criteria."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from penjing.evidence import Evidence
from penjing.registry import Entry, Registry

Criterion = Callable[[Evidence], Any]
"""Returns saliencies as its level says, or `Compensated`."""


@dataclass(frozen=True)
class Compensated:
    """Saliencies together with an update of the weights that stay, for when it is known what goes.

    Attributes:
        saliency: what the criterion returns otherwise.
        units: from the units that go, per group (its position), to new weights by name, before anything is removed.
        weights: from masks by name, False is pruned, to new weights by name.
    """

    saliency: Any
    units: Callable[[Mapping[int, np.ndarray]], dict[str, Tensor]] | None = None
    weights: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None


@dataclass(frozen=True, kw_only=True)
class CriterionEntry(Entry[Criterion]):
    """A registered criterion.

    Attributes:
        level: what it scores. "weight": the function returns {parameter name: saliency of its shape}; "unit": one
            `(units,)` tensor per group.
        finish: the last step, after the saliencies of weights that go together were summed; None where the sum is all.
        branches: it scores residual branches, too, where the evidence has some: then it returns one `(branches,)` tensor. A
            criterion of weights always can.
    """

    level: Literal["weight", "unit"]
    finish: Callable[[Tensor], Tensor] | None = None
    branches: bool = False

    def can_score(self, removes: Literal["channels", "branches", "weights"]) -> bool:
        """Tells whether it can score what goes."""
        return self.level == "weight" or removes == "channels" or (removes == "branches" and self.branches)


criteria = Registry("criterion", CriterionEntry)


def makers(evidence: Evidence) -> dict[str, Tensor]:
    """Returns the weights to score, by name: those that make removable channels, of removable branches, or all."""
    names = dict.fromkeys(name for group in evidence.groups for name in group.made_by())
    names |= dict.fromkeys(name for branch in evidence.branches for name in branch.weights)
    names |= dict.fromkeys(evidence.weights)
    return {name: evidence.graph.tensor(name).detach() for name in names}


class Each(Mapping[str, Tensor]):
    """Saliencies that are functions of the weight alone, each computed when it is looked at: all would be a second model."""

    def __init__(self, evidence: Evidence, function: Callable[[Tensor], Tensor]) -> None:
        self._weights, self._function = makers(evidence), function

    def __getitem__(self, name: str) -> Tensor:
        return self._function(self._weights[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
