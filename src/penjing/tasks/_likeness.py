"""Compares the answers of two networks; the result takes the metric's place where there are no labels.

The measure depends on the kind of the original's outputs, and its name is shown with every value. A network that gives the
same answer to every input must not pass for a good copy. So each measure also gives the value that such a network would
reach, and a measure by which it would pass for a perfect copy isn't used.
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
FLAT = 1e-12  # share of the mean square; a column with less variance has a single value, apart from rounding


@dataclass(frozen=True)
class Likeness:
    """How alike two networks answered.

    Attributes:
        value: from 0 to 1, where 1 means the same answer to every input; of several outputs, the value of the least alike.
        measure: name of the measure of that value:
            "top-1": the share of samples (or pixels) with the same largest entry along axis 1;
            "decisions at 0.5": the share of equal decisions where a single column holds a probability; it is the mean of the
            share among the samples that the original accepts and the share among those that it rejects, so that the rarer
            decision counts as much;
            "R²": 1 - relative squared error, the coefficient of determination of the original's outputs; each column counts
            at least 0, and the mean over the columns is taken;
            "equal values": the share of equal entries, for outputs in whole numbers.
        constant: value that a network would reach which answers every input alike; 1 where the original itself does so, and
            the comparison says nothing.
        output: index of the output that `value` is of, counted from 0.
        outputs: number of outputs of the network.
    """

    value: float
    measure: str
    constant: float
    output: int = 0
    outputs: int = 1


class _Measure(Protocol):
    """One way to compare two networks' outputs, summed up over all batches."""

    name: str

    def update(self, original: Tensor, other: Tensor) -> None:
        """Adds both networks' outputs for one batch, which have the same shape `(N, ...)`."""

    def suits(self) -> bool:
        """Tells whether the original's outputs are of the kind that this measure is for."""

    def value(self) -> float:
        """Returns the likeness over all batches."""

    def constant(self) -> float:
        """Returns the likeness that a network would reach which answers every input alike."""


@dataclass
class _TopOne:
    """Compares which entry along axis 1 is the largest. Where all entries are equal, or one is NaN, there is no answer."""

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

    def suits(self) -> bool:
        return self.possible and len(self.answers) > 1

    def value(self) -> float:
        return self.equal / self.total

    def constant(self) -> float:
        return 1.0 if len(self.answers) < 2 else max(self.answers.values()) / self.total


@dataclass
class _Decisions:
    """Compares the yes or no of a probability in a single column; NaN is neither yes nor no."""

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

    def suits(self) -> bool:
        return self.possible and all(self.asked.values())

    def value(self) -> float:
        return sum(self.equal[side] / self.asked[side] for side in (True, False)) / 2

    def constant(self) -> float:
        return 0.5


@dataclass
class _ColumnMoments:
    """Sums over samples and positions for each column, `(C,)` in float64; moments are taken about a value near the mean."""

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
        """Adds values `(C, M)`. Infinities that both have at the same place, as masks are, count as equal."""
        same = (original == other) & original.isinf()
        original, other = original.masked_fill(same, 0.0), other.masked_fill(same, 0.0)
        self.count += original.shape[1]
        self.total = self.total + (original - self.near[:, None]).sum(1)
        self.squares = self.squares + (original - self.near[:, None]).square().sum(1)
        self.errors = self.errors + (original - other).square().sum(1)
        self.magnitude = self.magnitude + original.square().sum(1)

    def spread(self) -> Tensor:
        """Returns the sum of squared distances from the mean, 0 where all values are equal."""
        found = (self.squares - self.total.square() / self.count).clamp(min=0)
        return torch.where(found <= FLAT * self.magnitude, 0.0, found)


@dataclass
class _R2:
    """The share of the variance of the original's outputs that the other network's explain, column by column of axis 1."""

    name: str = R2
    moments: dict[int, _ColumnMoments] = field(default_factory=dict)  # by the number of columns, which may differ

    def update(self, original: Tensor, other: Tensor) -> None:
        rows = [_columns(tensor) for tensor in (original, other)]
        near = rows[0].nan_to_num(0.0, 0.0, 0.0).mean(1)
        self.moments.setdefault(len(near), _ColumnMoments.about(near)).add(*rows)

    def suits(self) -> bool:
        return True

    def value(self) -> float:
        found = [(_explained(one), one.count * len(one.near)) for one in self.moments.values()]
        return sum(share * weight for share, weight in found) / sum(weight for _, weight in found)

    def constant(self) -> float:
        return 0.0 if any(bool((one.spread() > 0).any()) for one in self.moments.values()) else 1.0


def _columns(outputs: Tensor) -> Tensor:
    """Returns outputs `(N, C, ...)` as `(C, M)` in float64; outputs `(N,)` become one column."""
    values = outputs.double()
    return values[None] if values.ndim == 1 else values.transpose(0, 1).reshape(values.shape[1], -1)


def _explained(one: _ColumnMoments) -> float:
    """Returns the mean over columns of 1 - error / spread, where each column counts at least 0.

    A column in which the original always gives the same value has no spread. Its error is divided by the mean spread of the
    other columns instead, or, where no column varies, by the mean magnitude of all.
    """
    spread = one.spread()
    varies = spread > 0
    usual = spread[varies].mean() if bool(varies.any()) else one.magnitude.mean()
    share = 1 - one.errors / torch.where(varies, spread, usual)
    share = torch.where(one.errors == 0, 1.0, share)
    return float(share.nan_to_num(0.0, 0.0, 0.0).clamp(0, 1).mean())


@dataclass
class _Equal:
    """Compares outputs in whole numbers: classes that were picked, tokens, masks."""

    name: str = EQUAL
    equal: int = 0
    total: int = 0
    values: Counter[int] = field(default_factory=Counter)

    def update(self, original: Tensor, other: Tensor) -> None:
        self.equal += int((original == other).sum())
        self.total += original.numel()
        found, counts = original.unique(return_counts=True)
        self.values.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def suits(self) -> bool:
        return True

    def value(self) -> float:
        return self.equal / self.total

    def constant(self) -> float:
        return max(self.values.values()) / self.total


# The measures of outputs in floating point, by the kind of answers; the first one that suits the outputs is used.
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
        self._compared = 0  # number of the original's values so far

    def update(self, original: Tensor, other: Tensor) -> None:
        """Adds both networks' outputs for one batch.

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
        """Returns how alike the two are over all batches, by the first measure that suits the outputs.

        Outputs that never hold a value count as equal. They would for any network, so `constant` is 1 too.
        """
        if not self._compared:
            return Likeness(1.0, EQUAL, 1.0)
        measure = next((one for one in self._used if one.suits()), self._used[-1])
        return Likeness(measure.value(), measure.name, measure.constant())


def answered(logits: Tensor) -> Tensor:
    """Returns where logits `(N, C, ...)` give an answer, as booleans `(N, ...)`: none is NaN, and not all are equal."""
    return ~logits.isnan().any(1) & (logits.amax(1) > logits.amin(1))


def answers_of(task: Any) -> Answers:
    """Returns the kind of outputs that a task names in its `answers`, or "auto" where it has none."""
    return getattr(task, "answers", "auto")
