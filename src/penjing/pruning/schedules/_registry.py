"""The table of schedules, and what a schedule asks for at each moment."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from penjing.registry import Chosen, NumberedEntry, Registry


@dataclass(frozen=True)
class Moment:
    """What a schedule asks for at one point of a training.

    Attributes:
        share: share of the final amount that is gone now, 0 to 1.
        returns: whether pruned weights may come back; they are judged, and trained, by their values behind the masks.
        decay: strength of L2 regularisation on weights that will go but haven't gone yet.
        sparsity: strength of L1 regularisation on the scales of norms.
        dropout: probability with which a step leaves out a weight or unit that will go.
        saves: whether the present weights are saved, as those to rewind to; the last ones saved count.
        rewind: whether a training that begins now begins with the saved weights.
    """

    share: float = 0.0
    returns: bool = False
    decay: float = 0.0
    sparsity: float = 0.0
    dropout: float = 0.0
    saves: bool = False
    rewind: bool = False


Schedule = Callable[[float, float, float], Moment]
"""A pure function `(progress, amount, number)` that returns a moment. `progress` runs from 0 to 1 over all trainings
together. `amount` is the share of all weights or units that is gone in the end, 0 where no single number says it. `number` is
the schedule's own number, from its name or its default."""


def one_training(number: float) -> int:
    """Returns 1, the number of trainings of most schedules, whatever the schedule's own number is."""
    return 1


@dataclass(frozen=True, kw_only=True)
class ScheduleEntry(NumberedEntry[Schedule]):
    """A registered schedule.

    Attributes:
        trainings: function from the schedule's own number to the number of trainings in a row.
        removes: what the schedule can remove, in the words of `GranularityEntry.removes`.
    """

    trainings: Callable[[float], int] = one_training
    removes: tuple[Literal["weights", "channels", "branches"], ...] = ("weights", "channels")


schedules = Registry("schedule", ScheduleEntry)


class ChosenSchedule(Chosen[ScheduleEntry]):
    """A schedule as the user typed it."""

    @property
    def trainings(self) -> int:
        """The number of trainings in a row."""
        return self.entry.trainings(self.number)

    @property
    def removes(self) -> tuple[str, ...]:
        """What the schedule can remove: "weights", "channels", "branches"."""
        return self.entry.removes

    def at(self, progress: float, amount: float) -> Moment:
        """Returns the moment at this progress, 0 to 1 over all trainings."""
        return self.entry.function(progress, amount, self.number)


def find(name: str) -> ChosenSchedule:
    """Returns the schedule that `name` means, its number included: "cubic", "cubic:0.5", "iterative:10".

    Raises:
        PenjingError: there is no such schedule, or its number makes no sense.
    """
    return ChosenSchedule.read("schedule", name, schedules)


def round_at(progress: float, trainings: float) -> int:
    """Returns the number, from 0, of the training in which this progress over all trainings lies."""
    return min(math.floor(progress * trainings + 1e-9), int(trainings) - 1)  # (k / n) · n may be just below k


def evenly(done: float, amount: float) -> float:
    """Returns the share of `amount` that is gone if each round prunes the same share of what the round before it left.

    Args:
        done: the share of the rounds that is done, 0 to 1.
        amount: the share that is gone after all rounds; for 0, the limit, all rounds prune alike.
    """
    if done >= 1:
        return 1.0
    return done if amount <= 0 else -math.expm1(done * math.log1p(-amount)) / amount
