"""What should go: how much, by which choices, and the scores that decide it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.loss_change import Damage, damages
from penjing.evidence.memory import Found, fingerprint_of_tensors, memory_of
from penjing.prune.allocations._registry import Place, Rounding, find
from penjing.prune.criteria import criteria
from penjing.prune.criteria._registry import Compensated, Criterion
from penjing.prune.granularities._registry import Chosen
from penjing.registry import Entry

Scores = Sequence[Tensor]


@dataclass(frozen=True)
class Wanted:
    """How much should go, and by which choices; `amount` is what the allocation asks for.

    A schedule is named where one decides when what goes.
    """

    amount: Any
    criterion: str
    granularity: Chosen
    allocation: str
    schedule: str = ""

    def kept(
        self, scores: Scores, rounding: Rounding, places: Sequence[Place], damage: Damage | None = None
    ) -> list[int]:
        """Returns how many units each group keeps."""
        entry = find(self.allocation)[0]
        measured = {"damage": damage} if entry.needs else {}
        return entry.function(scores, self.amount, rounding, places, **measured)

    def damage(self, evidence: Evidence, scores: Scores, places: Sequence[Place]) -> Damage | None:
        """Returns what the loss gains when the weakest units of places go, if the allocation asks for that."""
        return damages(evidence, scores, places) if find(self.allocation)[0].needs else None

    def saliency(self, evidence: Evidence) -> Compensated:
        """Returns what the criterion says of weights or units, and how those that stay make up for those that go.

        Raises:
            PenjingError: it scores channels, and something else is to go.
        """
        entry = criteria[self.criterion]
        removes = self.granularity.removes
        if not _fits(entry, removes):
            able = ", ".join(sorted(name for name, one in criteria.items() if _fits(one, removes)))
            parts = {"branches": "whole branches", "weights": "single weights"}[removes]
            raise PenjingError(
                f"The criterion '{self.criterion}' scores single channels, not {parts}; "
                f"granularity='{self.granularity.name}' works with {able}."
            )
        found = _judged(entry, evidence)
        return found if isinstance(found, Compensated) else Compensated(found)

    @property
    def finish(self) -> Callable[[Tensor], Tensor]:
        """The criterion's last step, after saliencies of weights were summed."""
        finish: Callable[[Tensor], Tensor] = criteria[self.criterion].traits.get("finish", lambda score: score)
        return finish

    def scores(self, evidence: Evidence, saliency: Any) -> list[Tensor]:
        """Returns the scores of the units of each group, or of all branches."""
        if criteria[self.criterion].traits["level"] == "weight":
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
            raise PenjingError(f"The criterion '{self.criterion}' gives scores that aren't numbers for {name}.")

    def empties(self, units: int) -> bool:
        """Tells whether the amount, spread evenly, would leave nothing of this many units."""
        if find(self.allocation)[1] is not None or not isinstance(self.amount, float | int):
            return False
        return math.floor(self.amount * units + 0.5) >= units

    def step(self, place: str, before: int, after: int, note: str = "") -> dict[str, Any]:
        """Returns the record of what happened in one place."""
        choices = (self.granularity.name, self.criterion, self.allocation, self.schedule)
        setting = ", ".join(filter(None, choices)) + note
        return {"place": place, "technique": "prune", "setting": setting, "before": before, "after": after}


def _fits(criterion: Entry[Criterion], removes: str) -> bool:
    """Tells whether a criterion can score what goes."""
    return removes == "channels" or criterion.traits["level"] == "weight" or bool(criterion.traits.get(removes))


def _judged(criterion: Entry[Criterion], evidence: Evidence) -> Any:
    """Returns what a criterion says; scores of units that need data come from the data's memory, where they have one."""
    if not criterion.needs or criterion.traits["level"] != "unit" or memory_of(evidence.data) is None:
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


def at_least(kept: int) -> str:
    """Returns what the plan says where the last units stayed."""
    return f"; at least {kept} stay{'s' if kept == 1 else ''}"


def share(amount: object) -> float:
    """Returns an amount that is the share of what should go.

    Raises:
        PenjingError: it is none.
    """
    if not isinstance(amount, float | int) or isinstance(amount, bool) or not 0 <= amount < 1:
        raise PenjingError(f"amount is the share of units to remove, 0 ≤ amount < 1, not {amount!r}.")
    return amount
