"""How alike two networks answer: what stands in for the metric where there are no labels.

Which measure fits depends on what the original's outputs are, and is named wherever its value is shown. A network that
gives one and the same answer to every input must not pass for a good copy, so each measure also tells what such a network
would reach, and a measure that it would pass outright isn't taken.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from penjing.errors import PenjingError

Answers = Literal["auto", "classes", "values"]

TOP_ONE = "top-1"
DECISIONS = "decisions at 0.5"
R2 = "R²"
EQUAL = "equal values"
THRESHOLD = 0.5  # a probability of at least this is a yes
FLAT = 1e-12  # a column whose variance is below this share of its mean square has a single value, but for rounding


@dataclass(frozen=True)
class Likeness:
    """How alike two networks answered.

    Attributes:
        value: from 0 to 1 for the same answers to everything; of a network with several outputs, of the one that is least
            alike.
        measure: what that value is:
            "top-1": the share of samples (or pixels) with the same largest entry along axis 1;
            "decisions at 0.5": the share of equal decisions of a probability in a single column, the mean of the shares
            among those that the original accepts and among those that it rejects, so that rare ones count as much;
            "R²": 1 - relative squared error, the coefficient of determination of the original's outputs, the mean over
            their columns, of each at least 0;
            "equal values": the share of equal entries, of outputs in whole numbers.
        constant: what a network would reach that answers every input alike; 1 where the original itself does so, and
            nothing can be told by comparing with it.
        output: which output that is, counted from 0.
        outputs: how many the network has.
    """

    value: float
    measure: str
    constant: float
    output: int = 0
    outputs: int = 1


class _Measure(Protocol):
    """One way to compare, over all batches."""

    name: str

    def update(self, original: Tensor, other: Tensor) -> None:
        """Takes in the outputs to one batch, which have one shape `(N, ...)`."""

    def tells(self) -> bool:
        """Whether the original's outputs are of the kind that this measure is for."""

    def value(self) -> float:
        """Returns the likeness over all batches."""

    def constant(self) -> float:
        """Returns what a network would reach that answers every input alike."""


@dataclass
class _TopOne:
    """Which entry along axis 1 is the largest. Where all are equal, or one isn't a number, there is no answer."""

    name: str = TOP_ONE
    equal: int = 0
    total: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    possible: bool = True

    def update(self, original: Tensor, other: Tensor) -> None:
        if original.ndim < 2 or original.shape[1] < 2:
            self.possible = False
            return
        answers, given = original.argmax(1), answered(original)
        self.equal += int(((answers == other.argmax(1)) & given & answered(other)).sum())
        self.total += answers.numel()
        found, counts = answers[given].unique(return_counts=True)
        self.answers.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def tells(self) -> bool:
        return self.possible and len(self.answers) > 1

    def value(self) -> float:
        return self.equal / self.total

    def constant(self) -> float:
        return 1.0 if len(self.answers) < 2 else max(self.answers.values()) / self.total


@dataclass
class _Decisions:
    """Yes or no of a probability in a single column; what isn't a number decides nothing."""

    name: str = DECISIONS
    asked: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    equal: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    possible: bool = True

    def update(self, original: Tensor, other: Tensor) -> None:
        one_column = original.ndim == 1 or original.shape[1] == 1
        self.possible &= one_column and bool(((original >= 0) & (original <= 1)).all())
        for accepted in (True, False):
            among = (original >= THRESHOLD) == accepted
            self.asked[accepted] += int(among.sum())
            self.equal[accepted] += int((among & ((other >= THRESHOLD) == accepted) & ~other.isnan()).sum())

    def tells(self) -> bool:
        return self.possible and all(self.asked.values())

    def value(self) -> float:
        return sum(self.equal[side] / self.asked[side] for side in (True, False)) / 2

    def constant(self) -> float:
        return 0.5


@dataclass
class _ColumnMoments:
    """Sums over samples and positions, for each column `(C,)`, in float64 and about a value near the mean."""

    near: Tensor
    count: int
    total: Tensor
    squares: Tensor
    errors: Tensor
    magnitude: Tensor

    @classmethod
    def about(cls, near: Tensor) -> "_ColumnMoments":
        zero = torch.zeros_like(near)
        return cls(near, 0, zero, zero, zero, zero)

    def add(self, original: Tensor, other: Tensor) -> None:
        """Takes in values `(C, M)`. Infinities that both have, such as masks, are no error."""
        same = (original == other) & original.isinf()
        original, other = original.masked_fill(same, 0.0), other.masked_fill(same, 0.0)
        self.count += original.shape[1]
        self.total = self.total + (original - self.near[:, None]).sum(1)
        self.squares = self.squares + (original - self.near[:, None]).square().sum(1)
        self.errors = self.errors + (original - other).square().sum(1)
        self.magnitude = self.magnitude + original.square().sum(1)

    def spread(self) -> Tensor:
        """Returns the sum of squared distances from the mean, 0 where all are alike."""
        found = (self.squares - self.total.square() / self.count).clamp(min=0)
        return torch.where(found <= FLAT * self.magnitude, 0.0, found)


@dataclass
class _R2:
    """The share of the variance of the original's outputs that the other explains, column by column of axis 1."""

    name: str = R2
    moments: dict[int, _ColumnMoments] = field(default_factory=dict)  # by the number of columns, which may differ

    def update(self, original: Tensor, other: Tensor) -> None:
        rows = [_columns(tensor) for tensor in (original, other)]
        near = rows[0].nan_to_num(0.0, 0.0, 0.0).mean(1)
        self.moments.setdefault(len(near), _ColumnMoments.about(near)).add(*rows)

    def tells(self) -> bool:
        return True

    def value(self) -> float:
        found = [(_explained(one), one.count * len(one.near)) for one in self.moments.values()]
        return sum(share * weight for share, weight in found) / sum(weight for _, weight in found)

    def constant(self) -> float:
        return 0.0 if any(bool((one.spread() > 0).any()) for one in self.moments.values()) else 1.0


def _columns(outputs: Tensor) -> Tensor:
    """Returns outputs `(N, C, ...)` as `(C, M)` in float64; of `(N,)` as one column."""
    values = outputs.double()
    return values[None] if values.ndim == 1 else values.transpose(0, 1).reshape(values.shape[1], -1)


def _explained(one: _ColumnMoments) -> float:
    """Returns the mean over columns of 1 - error / spread, each at least 0.

    A column in which the original always gives the same has no spread of its own, and is judged by the mean of the others;
    where there is none, by its magnitude.
    """
    spread = one.spread()
    varies = spread > 0
    usual = spread[varies].mean() if bool(varies.any()) else one.magnitude.mean()
    share = 1 - one.errors / torch.where(varies, spread, usual)
    share = torch.where(one.errors == 0, 1.0, share)
    return float(share.nan_to_num(0.0, 0.0, 0.0).clamp(0, 1).mean())


@dataclass
class _Equal:
    """Outputs in whole numbers: classes that were picked, tokens, masks."""

    name: str = EQUAL
    equal: int = 0
    total: int = 0
    values: Counter[int] = field(default_factory=Counter)

    def update(self, original: Tensor, other: Tensor) -> None:
        self.equal += int((original == other).sum())
        self.total += original.numel()
        found, counts = original.unique(return_counts=True)
        self.values.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def tells(self) -> bool:
        return True

    def value(self) -> float:
        return self.equal / self.total

    def constant(self) -> float:
        return max(self.values.values()) / self.total


# Which measures outputs in floating point may have, the first that tells something is taken.
_MEASURES: Mapping[Answers, tuple[type[_Measure], ...]] = {
    "auto": (_TopOne, _Decisions, _R2),
    "classes": (_TopOne,),
    "values": (_R2,),
}


class Tally:
    """Compares one output of two networks, batch by batch."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._floating = [measure() for measure in _MEASURES[answers]]
        self._whole = _Equal()
        self._used: Sequence[_Measure] = ()
        self._compared = 0  # values of the original so far

    def update(self, original: Tensor, other: Tensor) -> None:
        """Takes in what both gave to one batch.

        Raises:
            PenjingError: the shapes differ, or there is no axis for samples.
        """
        if original.shape != other.shape:
            shapes = f"{tuple(original.shape)} and {tuple(other.shape)}"
            raise PenjingError(f"The two networks' answers can't be compared: their shapes are {shapes}.")
        if original.ndim == 0:
            raise PenjingError("Agreement needs outputs (N, ...) with an axis for samples, not single numbers.")
        if self._answers == "classes" and (original.ndim < 2 or original.shape[1] < 2):
            raise PenjingError(f"Answers that are classes need outputs (N, classes, ...), not {tuple(original.shape)}.")
        self._used = self._floating if original.is_floating_point() else [self._whole]
        self._compared += original.numel()
        if original.numel():
            for measure in self._used:
                measure.update(original.detach().cpu(), other.detach().cpu())

    def likeness(self) -> Likeness:
        """Returns how alike the two are over all batches, by the first measure that tells.

        Outputs that never hold a value are alike, as those of any other network would be: nothing is told by them.
        """
        if not self._compared:
            return Likeness(1.0, EQUAL, 1.0)
        measure = next((one for one in self._used if one.tells()), self._used[-1])
        return Likeness(measure.value(), measure.name, measure.constant())


def answered(logits: Tensor) -> Tensor:
    """Returns where logits `(N, C, ...)` give an answer, `(N, ...)`: all are numbers, and not all are the same."""
    return ~logits.isnan().any(1) & (logits.amax(1) > logits.amin(1))


def answers_of(task: Any) -> Answers:
    """Returns what the outputs of a task's networks are: what it says, or "auto"."""
    return getattr(task, "answers", "auto")
