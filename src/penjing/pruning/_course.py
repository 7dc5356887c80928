"""The state that a schedule asks for at each moment of its trainings: a pure function of their progress."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from penjing.errors import PenjingError
from penjing.pruning._wanted import Wanted
from penjing.pruning.allocations._registry import find as find_allocation
from penjing.pruning.schedules import Chosen, Moment, find, schedules

# Between the two thresholds of splicing, 0.9 and 1.1 of one as in the authors' code, everything stays as it is.
BAND = 0.1
# At how many points of each training a schedule is looked at beforehand.
POINTS = 100


@dataclass(frozen=True)
class Course:
    """A schedule with what it is to bring about.

    Attributes:
        schedule: when.
        wanted: what, in the end.
    """

    schedule: Chosen
    wanted: Wanted

    def __post_init__(self) -> None:
        """Refuses what can't be.

        Raises:
            PenjingError: the granularity's things can't be held at zero for a while, or can't go little by little.
        """
        granularity = self.wanted.granularity
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
        """The share of all that is to go in the end, 0 if that is no single number."""
        if self.wanted.granularity.keeps is not None:
            n, m = self.wanted.granularity.keeps
            return 1 - n / m
        amount, own = self.wanted.amount, find_allocation(self.wanted.allocation)[1]
        return amount if isinstance(amount, float | int) and own is None else 0.0

    def at(self, training: int, progress: float) -> Moment:
        """Returns what holds in a training, numbered from 0, when this share of it is done."""
        return self.schedule.at((training + progress) / self.schedule.trainings, self.amount)

    def ever(self, what: str) -> bool:
        """Tells whether an attribute of moments is ever set before the end."""
        return any(getattr(moment, what) for moment in _moments(self.schedule, self.amount))

    def wanted_at(self, share: float, beside: int = 0) -> Wanted:
        """Returns what is wanted when this share of it is to be gone; with `beside`, by a lower (−1) or upper (1) threshold.

        Of n:m, as many of every m are gone as is allowed by then; of a threshold, the share is that of the limit.
        """
        wanted = self.wanted
        if wanted.granularity.keeps is not None:
            n, m = wanted.granularity.keeps
            n = m - math.floor(share * (m - n) + 1e-9)
            return replace(wanted, granularity=replace(wanted.granularity, arguments={"n": n, "m": m}))
        if wanted.granularity.stays is not None:
            return wanted
        if find_allocation(wanted.allocation)[1] is not None:
            return replace(wanted, amount=wanted.amount * share * (1 + BAND * beside))

        def around(amount: float) -> float:
            # A tenth of what goes or of what stays, whichever is less: a tenth more than 95 % can't go.
            return share * amount + beside * BAND * min(share * amount, 1 - share * amount)

        if isinstance(wanted.amount, Mapping):
            return replace(wanted, amount={place: around(amount) for place, amount in wanted.amount.items()})
        return replace(wanted, amount=around(wanted.amount))


def _moments(schedule: Chosen, amount: float) -> list[Moment]:
    points = POINTS * schedule.trainings
    return [schedule.at(i / points, amount) for i in range(points)]
