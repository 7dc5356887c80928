"""The request of a pruning: how much goes, by which choices, and the scores that decide which units go."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.loss_change import Damage, damages
from penjing.evidence.memory import Found, fingerprint_of_tensors, memory_of
from penjing.graph import Option, Place
from penjing.pruning.allocations._registry import ChosenAllocation, Rounding, Scored
from penjing.pruning.criteria import criteria
from penjing.pruning.criteria._registry import Compensated, CriterionEntry
from penjing.pruning.granularities._registry import ChosenGranularity

Scores = Sequence[Tensor]


@dataclass(frozen=True)
class Selection:
    """How much should go, and by which choices.

    Attributes:
        amount: how much goes, in the form that the allocation takes.
        criterion: scores how much a unit or weight matters.
        granularity: says which weights stand or fall together.
        allocation: spreads the amount over the model.
        schedule: name of the schedule that decides when units go; empty if all go at once.
        scope: the other settings on which the choice of units depends, as plain JSON: patterns of module paths, batches,
            seed and units.
        keep: how many units stay at each place, by its path, where a plan says so instead of the allocation.
    """

    amount: Any
    criterion: CriterionEntry
    granularity: ChosenGranularity
    allocation: ChosenAllocation
    schedule: str = ""
    scope: Mapping[str, Any] = field(default_factory=dict)
    keep: Mapping[str, int] | None = None

    def kept(
        self, scores: Scores, rounding: Rounding, places: Sequence[Scored], damage: Damage | None = None
    ) -> list[int]:
        """Returns how many units each group keeps."""
        if self.keep is not None:
            return [self.keep.get(place.name, len(score)) for place, score in zip(places, scores, strict=True)]
        measured = {"damage": damage} if self.allocation.entry.needs else {}
        return self.allocation.entry.function(scores, self.amount, rounding, places, **measured)

    def damage(self, evidence: Evidence, scores: Scores, places: Sequence[Scored]) -> Damage | None:
        """Returns how much the loss grows when the weakest units of one place go; None if the allocation doesn't ask."""
        asks = self.keep is None and self.allocation.entry.needs
        return damages(evidence, scores, places) if asks else None

    def saliency(self, evidence: Evidence) -> Compensated:
        """Returns the criterion's saliencies, with the function by which remaining weights make up for those that go.

        Raises:
            PenjingError: the criterion scores channels only, and the granularity removes something else.
        """
        removes = self.granularity.removes
        if not self.criterion.can_score(removes):
            able = ", ".join(sorted(name for name, one in criteria.items() if one.can_score(removes)))
            parts = {"branches": "whole branches", "weights": "single weights"}[removes]
            raise PenjingError(
                f"The criterion '{self.criterion.name}' scores single channels, not {parts}; "
                f"granularity='{self.granularity.name}' works with {able}."
            )
        found = _saliencies(self.criterion, evidence)
        return found if isinstance(found, Compensated) else Compensated(found)

    @property
    def finish(self) -> Callable[[Tensor], Tensor]:
        """The criterion's last step, which takes the summed saliencies of weights that go together."""
        return self.criterion.finish or (lambda score: score)

    def scores(self, evidence: Evidence, saliency: Any) -> list[Tensor]:
        """Returns the scores of the units of each group, or of all branches."""
        if self.criterion.level == "weight":
            saliency = self.granularity.entry.function(evidence, saliency, self.finish)
        places = [[group.name] * group.units for group in evidence.groups] or [[one.name for one in evidence.branches]]
        for names, score in zip(places, saliency, strict=True):
            self.check(score, names)
        return list(saliency)

    def check(self, score: Tensor, names: Sequence[str]) -> None:
        """Makes sure that all scores are finite.

        Raises:
            PenjingError: a score isn't; the message names its place.
        """
        wrong = ~torch.isfinite(score)
        if bool(wrong.any()):
            name = names[int(wrong.nonzero()[0])] if len(names) > 1 else names[0]
            raise PenjingError(f"The criterion '{self.criterion.name}' gives scores that aren't numbers for {name}.")

    def empties(self, units: int) -> bool:
        """Tells whether the amount, spread evenly, would remove all of this many units."""
        if self.keep is not None or self.allocation.amount is not None or not isinstance(self.amount, float | int):
            return False
        return math.floor(self.amount * units + 0.5) >= units

    def step(
        self,
        kind: Literal["group", "branch", "weight"],
        path: str,
        before: int,
        after: int,
        keep: int | None = None,
        **found: Any,
    ) -> Option:
        """Returns the plan's entry for one place.

        Args:
            kind: the place's kind.
            path: the place's module path.
            before: how many units there were (for a weight: entries; for a branch: 1).
            after: how many are left.
            keep: how many units or rows of weights stay, where the granularity's name doesn't fix that.
            found: further results at this place, by name.
        """
        setting = {
            "granularity": self.granularity.name,
            "criterion": self.criterion.name,
            "allocation": self.allocation.name,
            **({"schedule": self.schedule} if self.schedule else {}),
            **({"keep": keep} if keep is not None else {}),
            **self.scope,
        }
        return Option(Place(kind, path), "prune", setting, before, after, found)


def _saliencies(criterion: CriterionEntry, evidence: Evidence) -> Any:
    """Returns a criterion's saliencies. Scores of units that need data are kept in the data's memory, if it has one."""
    if not criterion.needs or criterion.level != "unit" or memory_of(evidence.data) is None:
        return criterion.function(evidence)
    ours, made = criterion.function.__module__.startswith("penjing."), None
    about = {
        "criterion": [criterion.name, 0 if ours else id(criterion.function)],
        "epochs": evidence.epochs,
        "branches": [branch.name for branch in evidence.branches],
        "groups": [group.name for group in evidence.groups],
        "units": fingerprint_of_tensors(
            {f"{entry.tensor} {entry.axis} {entry.role}": torch.from_numpy(entry.indices)}
            for group in evidence.groups
            for entry in group.entries
        ),
    }

    def find(names: list[str]) -> dict[str, Found]:
        nonlocal made
        made = criterion.function(evidence)
        if isinstance(made, Compensated):  # it holds functions, which a memory can't keep
            return {name: {} for name in names}
        return {name: {"scores": score} for name, score in zip(names, made, strict=True)}

    names = [str(position) for position in range(len(evidence.groups) or 1)]
    parts = evidence.gather("saliency", about, names, find, across_processes=ours)
    return made if made is not None else [parts[name]["scores"].clone() for name in names]


def lowest(score: Tensor, gone: Tensor) -> Tensor:
    """Returns scores in which units that are gone rank below all others: at 0 if the others' are positive, else just below."""
    if not bool(gone.any()) or bool(gone.all()):
        return score
    least = score[~gone].min()
    below = torch.zeros_like(least) if least > 0 else least.nextafter(least.new_tensor(-math.inf))
    return torch.where(gone, below, score)


def share(amount: object) -> float:
    """Returns the amount, once it is checked to be a share.

    Raises:
        PenjingError: the amount isn't a number with 0 ≤ amount < 1.
    """
    if not isinstance(amount, float | int) or isinstance(amount, bool) or not 0 <= amount < 1:
        raise PenjingError(f"amount is the share of units to remove, 0 ≤ amount < 1, not {amount!r}.")
    return amount
