"""The table of schedules, and what a schedule says."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from penjing.errors import PenjingError
from penjing.registry import Entry, Registry


@dataclass(frozen=True)
class Moment:
    """What holds at one point of a training.

    Attributes:
        share: how much of what is to go in the end is gone now, 0 to 1.
        returns: what is gone may come back: it is judged, and trained, by the values that it has behind the masks.
        decay: strength of L2 regularisation on what is to go and is not yet gone.
        sparsity: strength of L1 regularisation on the scales of norms.
        dropout: probability that one of those that are to go is left out of a step.
        saves: the weights as they are now are those to rewind to; the last to be saved count.
        rewind: what begins now begins with the saved weights.
    """

    share: float = 0.0
    returns: bool = False
    decay: float = 0.0
    sparsity: float = 0.0
    dropout: float = 0.0
    saves: bool = False
    rewind: bool = False


Schedule = Callable[[float, float, float], Moment]
"""A pure function: from progress, 0 to 1 (over all trainings, where there are several), the share of all that is to go in
the end (0 where that is no single number) and the schedule's own number, out of its name or by default, to what holds then.
"""


@dataclass(frozen=True)
class ScheduleNumber:
    """The number that may stand in a schedule's name, behind a colon.

    Attributes:
        meaning: what it is, in words.
        default: where the user gives none; a whole number asks for whole ones.
        lowest: the smallest that is allowed.
        highest: the largest that is allowed.
    """

    meaning: str
    default: float
    lowest: float
    highest: float


def one_training(number: float) -> int:
    """Returns 1: how many trainings most schedules take, whatever their number."""
    return 1


@dataclass(frozen=True, kw_only=True)
class ScheduleEntry(Entry[Schedule]):
    """A registered schedule.

    Attributes:
        number: what its own number may be; None where there is none.
        trainings: from that number to how many trainings follow one another.
        removes: which granularities' things the schedule can hold back.
    """

    number: ScheduleNumber | None = None
    trainings: Callable[[float], int] = one_training
    removes: tuple[Literal["weights", "channels", "branches"], ...] = ("weights", "channels")


schedules = Registry("schedule", ScheduleEntry)


@dataclass(frozen=True)
class ChosenSchedule:
    """A schedule as the user typed it.

    Attributes:
        name: that text.
        entry: what is registered.
        number: the schedule's own.
    """

    name: str
    entry: ScheduleEntry
    number: float = 0.0

    @property
    def trainings(self) -> int:
        """How many trainings follow one another."""
        return self.entry.trainings(self.number)

    @property
    def removes(self) -> tuple[str, ...]:
        """What it can hold back: "weights", "channels", "branches"."""
        return self.entry.removes

    def at(self, progress: float, amount: float) -> Moment:
        """Returns what holds when this share of the whole training is done."""
        return self.entry.function(progress, amount, self.number)


def find(name: str) -> ChosenSchedule:
    """Returns the schedule that `name` means, its number included: "cubic", "cubic:0.5", "iterative:10".

    Raises:
        PenjingError: there is none, or its number makes no sense.
    """
    kind, colon, text = name.partition(":")
    entry = schedules[kind]
    known = entry.number
    if known is None:
        if colon:
            raise PenjingError(f"schedule='{name}': '{kind}' takes no number.")
        return ChosenSchedule(name, entry)
    if not colon:
        return ChosenSchedule(name, entry, known.default)
    low, high, whole = known.lowest, known.highest, isinstance(known.default, int)
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        kind_of = "a whole number" if whole else "a number"
        bounds = f"from {low} to {high}" if math.isfinite(high) else f"of at least {low}"
        raise PenjingError(f"schedule='{name}': what follows the colon is the {known.meaning}, {kind_of} {bounds}.")
    return ChosenSchedule(name, entry, number)


def round_at(progress: float, trainings: float) -> int:
    """Returns the number, from 0, of the training that this share of all trainings lies in."""
    return min(math.floor(progress * trainings + 1e-9), int(trainings) - 1)  # (k / n) · n may be just below k


def evenly(done: float, amount: float) -> float:
    """Returns the share of `amount` that is gone if each round takes the same share of what the one before it left.

    Args:
        done: the share of the rounds, 0 to 1.
        amount: what is gone after all of them; in the limit of 0 each round takes as much.
    """
    if done >= 1:
        return 1.0
    return done if amount <= 0 else -math.expm1(done * math.log1p(-amount)) / amount
