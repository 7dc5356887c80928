"""Which weights or units should be gone at each moment of a schedule's trainings: a pure function of their progress."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from penjing.errors import PenjingError
from penjing.pruning._selection import Selection
from penjing.pruning.schedules import ChosenSchedule, Moment, find, schedules

# How far splicing's two thresholds lie from the middle between them, as a share of it: 0.9 and 1.1 times, as in the
# authors' code. Weights between the two stay as they are.
BAND = 0.1
POINTS = 100  # moments per training at which a schedule is examined beforehand


@dataclass(frozen=True)
class ScheduledSelection:
    """A selection that a schedule carries out little by little.

    Attributes:
        schedule: says when weights or units go.
        selection: says which are gone in the end.
    """

    schedule: ChosenSchedule
    selection: Selection

    def __post_init__(self) -> None:
        """Refuses a schedule that doesn't go with the granularity.

        Raises:
            PenjingError: what the granularity removes can't be held at zero for a while, or can't go little by little.
        """
        granularity = self.selection.granularity
        fitting = [name for name in schedules if granularity.removes in find(name).removes]
        # The best of a set, such as a kernel's pattern, is chosen as a whole: there is no half of it.
        if granularity.stays is not None and granularity.keeps is None:
            fitting = [name for name in fitting if not any(0 < m.share < 1 for m in _moments(find(name), 0.0))]
        if self.schedule.entry.name not in fitting:
            raise PenjingError(
                f"schedule='{self.schedule.name}' does not go with granularity='{granularity.name}'. "
                f"Schedules that do: {', '.join(sorted(fitting))}."
            )

    @property
    def amount(self) -> float:
        """The share of all weights or units that is gone in the end; 0 if no single number says it."""
        if self.selection.granularity.keeps is not None:
            n, m = self.selection.granularity.keeps
            return 1 - n / m
        amount, own = self.selection.amount, self.selection.allocation.amount
        return amount if isinstance(amount, float | int) and own is None else 0.0

    def at(self, training: int, progress: float) -> Moment:
        """Returns the schedule's moment at this progress, 0 to 1, of a training; trainings are numbered from 0."""
        return self.schedule.at((training + progress) / self.schedule.trainings, self.amount)

    def ever(self, what: str) -> bool:
        """Tells whether the schedule ever sets this attribute of its moments before the end."""
        return any(getattr(moment, what) for moment in _moments(self.schedule, self.amount))

    def selection_at(self, share: float, beside: int = 0) -> Selection:
        """Returns the selection at the moment when this share of it should be gone.

        With N:M, as many of every M weights go as the share allows; an absolute threshold is multiplied by the share.

        Args:
            share: the share of the final amount, 0 to 1.
            beside: selects splicing's lower (−1) or upper (1) threshold; 0 selects the middle between them.
        """
        selection = self.selection
        if selection.granularity.keeps is not None:
            n, m = selection.granularity.keeps
            n = m - math.floor(share * (m - n) + 1e-9)
            return replace(selection, granularity=replace(selection.granularity, arguments={"n": n, "m": m}))
        if selection.granularity.stays is not None:
            return selection
        if selection.allocation.amount is not None:
            return replace(selection, amount=selection.amount * share * (1 + BAND * beside))

        def around(amount: float) -> float:
            # A tenth of what goes or of what stays, whichever is less: a tenth more than 95 % can't go.
            return share * amount + beside * BAND * min(share * amount, 1 - share * amount)

        if isinstance(selection.amount, Mapping):
            return replace(selection, amount={place: around(amount) for place, amount in selection.amount.items()})
        return replace(selection, amount=around(selection.amount))


def _moments(schedule: ChosenSchedule, amount: float) -> list[Moment]:
    points = POINTS * schedule.trainings
    return [schedule.at(i / points, amount) for i in range(points)]
