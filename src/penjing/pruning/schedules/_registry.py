"""The table of schedules, and what a schedule says."""

import math
from collections.abc import Callable
from dataclasses import dataclass

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

schedules: Registry[Schedule] = Registry("schedule")
"""Traits: `number` says what the number in the name is, `default` and `within` (lowest, highest) which ones there are;
without these there is none. `trainings` gives of that number how many trainings follow one another, by default one.
`removes` says which granularities' things the schedule can hold back, "weights", "channels" (by default both) or "branches".
"""


@dataclass(frozen=True)
class ChosenSchedule:
    """A schedule as the user typed it.

    Attributes:
        name: that text.
        entry: what is registered.
        number: the schedule's own.
    """

    name: str
    entry: Entry[Schedule]
    number: float = 0.0

    @property
    def trainings(self) -> int:
        """How many trainings follow one another."""
        trainings: Callable[[float], int] = self.entry.traits.get("trainings", lambda number: 1)
        return trainings(self.number)

    @property
    def removes(self) -> tuple[str, ...]:
        """What it can hold back: "weights", "channels", "branches"."""
        return tuple(self.entry.traits.get("removes", ("weights", "channels")))

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
    if "number" not in entry.traits:
        if colon:
            raise PenjingError(f"schedule='{name}': '{kind}' takes no number.")
        return ChosenSchedule(name, entry)
    if not colon:
        return ChosenSchedule(name, entry, entry.traits["default"])
    low, high = entry.traits["within"]
    whole = isinstance(entry.traits["default"], int)
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        kind_of = "a whole number" if whole else "a number"
        bounds = f"from {low} to {high}" if math.isfinite(high) else f"of at least {low}"
        raise PenjingError(
            f"schedule='{name}': what follows the colon is the {entry.traits['number']}, {kind_of} {bounds}."
        )
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
