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
        amount: what the allocation asks for.
        criterion: how much what could go matters.
        granularity: what stands or falls together.
        allocation: where how much goes.
        schedule: named where one decides when what goes.
        scope: what else decides which units go, as plain JSON: where channels are looked for, and the evidence.
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
        """Returns what the loss gains when the weakest units of places go, if the allocation asks for that."""
        asks = self.keep is None and self.allocation.entry.needs
        return damages(evidence, scores, places) if asks else None

    def saliency(self, evidence: Evidence) -> Compensated:
        """Returns what the criterion says of weights or units, and how those that stay make up for those that go.

        Raises:
            PenjingError: it scores channels, and something else is to go.
        """
        removes = self.granularity.removes
        if not self.criterion.can_score(removes):
            able = ", ".join(sorted(name for name, one in criteria.items() if one.can_score(removes)))
            parts = {"branches": "whole branches", "weights": "single weights"}[removes]
            raise PenjingError(
                f"The criterion '{self.criterion.name}' scores single channels, not {parts}; "
                f"granularity='{self.granularity.name}' works with {able}."
            )
        found = _judged(self.criterion, evidence)
        return found if isinstance(found, Compensated) else Compensated(found)

    @property
    def finish(self) -> Callable[[Tensor], Tensor]:
        """The criterion's last step, after saliencies of weights were summed."""
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
        """Makes sure that scores are numbers.

        Raises:
            PenjingError: one isn't; says whose.
        """
        wrong = ~torch.isfinite(score)
        if bool(wrong.any()):
            name = names[int(wrong.nonzero()[0])] if len(names) > 1 else names[0]
            raise PenjingError(f"The criterion '{self.criterion.name}' gives scores that aren't numbers for {name}.")

    def empties(self, units: int) -> bool:
        """Tells whether the amount, spread evenly, would leave nothing of this many units."""
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
        """Returns what happened at one place.

        Args:
            kind: of the place.
            path: of the place.
            before: how many units (of a weight: entries, of a branch: 1) there were.
            after: how many there are.
            keep: how many of what stands or falls together stay, where the granularity leaves that open.
            found: what else came of it.
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


def _judged(criterion: CriterionEntry, evidence: Evidence) -> Any:
    """Returns what a criterion says; scores of units that need data come from the data's memory, where they have one."""
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
        if isinstance(made, Compensated):  # which holds functions beside scores
            return {name: {} for name in names}
        return {name: {"scores": score} for name, score in zip(names, made, strict=True)}

    names = [str(position) for position in range(len(evidence.groups) or 1)]
    parts = evidence.gather("saliency", about, names, find, across_processes=ours)
    return made if made is not None else [parts[name]["scores"].clone() for name in names]


def lowest(score: Tensor, gone: Tensor) -> Tensor:
    """Returns scores in which what is gone is below all that is left: at 0 if that is positive, else just below it."""
    if not bool(gone.any()) or bool(gone.all()):
        return score
    least = score[~gone].min()
    below = torch.zeros_like(least) if least > 0 else least.nextafter(least.new_tensor(-math.inf))
    return torch.where(gone, below, score)


def share(amount: object) -> float:
    """Returns an amount that is the share of what should go.

    Raises:
        PenjingError: it is none.
    """
    if not isinstance(amount, float | int) or isinstance(amount, bool) or not 0 <= amount < 1:
        raise PenjingError(f"amount is the share of units to remove, 0 ≤ amount < 1, not {amount!r}.")
    return amount
