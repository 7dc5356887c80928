"""What is remembered of a stream of tensors, in constant memory: extremes, moving averages of them, histograms."""

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from penjing.errors import PenjingError

BINS = 4096
SMALLEST_WIDTH = -126  # binary exponent of the narrowest bin: below it float32 loses its precision


class NotFinite(ValueError):
    """Values hold NaN or infinity; whoever knows where they come from says so to the user."""


class Accumulator(Protocol):
    """What is remembered of a stream of tensors; its size doesn't depend on how many there were.

    Where a class has `whole_batches = True`, it makes a difference to it which values come together.
    """

    def update(self, values: Tensor) -> None:
        """Takes in one batch, of any shape.

        Raises:
            NotFinite: it holds NaN or infinity.
        """


@runtime_checkable
class Memorable(Accumulator, Protocol):
    """An accumulator whose state can be kept and given to another one of its kind.

    Attributes:
        kind: tells it from accumulators that would remember something else of the same values.
    """

    @property
    def kind(self) -> str:
        """See above."""

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what is remembered."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Remembers what another one remembered, and nothing else."""


def can_be_remembered(statistics: Accumulator) -> bool:
    """Tells whether the class of some statistics itself says what its state is: what a subclass adds would be lost."""
    return isinstance(statistics, Memorable) and "state_dict" in vars(type(statistics))


class Statistics(Accumulator, Protocol):
    """What an observer reads.

    Attributes:
        low: the smallest of all values; infinity before the first batch.
        high: the largest of all values; minus infinity before the first batch.
    """

    low: float
    high: float


def extremes(values: Tensor) -> tuple[float, float]:
    """Returns the smallest and the largest of some values.

    Raises:
        NotFinite: one of them is NaN or infinite, which shows in the extremes: nothing else need look for it.
    """
    if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)  # as it lies in memory: `aminmax` would copy it otherwise
    low, high = torch.stack(values.aminmax()).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NotFinite
    return low, high


class Extremes:
    """The smallest and the largest value.

    Attributes:
        low: the smallest; infinity before the first batch.
        high: the largest; minus infinity before the first batch.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    @property
    def kind(self) -> str:
        """See `Memorable`."""
        return "extremes"

    def state_dict(self) -> dict[str, Tensor]:
        """See `Memorable`."""
        return {"extremes": torch.tensor([self.low, self.high], dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `Memorable`."""
        self.low, self.high = state["extremes"].tolist()

    def update(self, values: Tensor) -> None:
        """Takes in one batch; see `Statistics`."""
        if values.numel():
            self._widen(values)

    def _widen(self, values: Tensor) -> tuple[float, float]:
        """Returns the extremes of one batch, behind which the own ones never fall."""
        low, high = extremes(values)
        self.low, self.high = min(self.low, low), max(self.high, high)
        return low, high


class MovingExtremes(Extremes):
    """Extremes, and those of each batch, averaged exponentially over batches.

    Attributes:
        average: of the smallest and of the largest values; None before the first batch.
        momentum: weight of the average so far when a batch comes in.
    """

    whole_batches = True

    def __init__(self, momentum: float = 0.9) -> None:
        if not 0 <= momentum < 1:
            raise PenjingError(f"The momentum of an average must be at least 0 and below 1, not {momentum:g}.")
        super().__init__()
        self.average: tuple[float, float] | None = None
        self.momentum = momentum

    @property
    def kind(self) -> str:
        """See `Memorable`."""
        return f"moving extremes {self.momentum!r}"

    def state_dict(self) -> dict[str, Tensor]:
        """See `Memorable`."""
        return super().state_dict() | {"average": torch.tensor(self.average or [], dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `Memorable`."""
        super().load_state_dict(state)
        average = state["average"].tolist()
        self.average = (average[0], average[1]) if average else None

    def update(self, values: Tensor) -> None:
        """Takes in one batch; see `Statistics`."""
        if not values.numel():
            return
        low, high = self._widen(values)
        if self.average is not None:
            old_low, old_high = self.average
            low = self.momentum * old_low + (1 - self.momentum) * low
            high = self.momentum * old_high + (1 - self.momentum) * high
        self.average = low, high


class Histogram(Extremes):
    """Extremes, and counts in bins of equal width that cover them.

    The width is a power of two and bin k covers [k · width, (k + 1) · width), so when values beyond the bins arrive,
    whole bins are merged: no count is ever split or guessed. At least half of the bins lie between the extremes.

    Attributes:
        counts: `(BINS,)` float64.
        first: k of the first bin.
        exponent: width = 2 ** exponent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.first = 0
        self.exponent: int | None = None

    @property
    def kind(self) -> str:
        """See `Memorable`."""
        return f"histogram {BINS}"

    def state_dict(self) -> dict[str, Tensor]:
        """See `Memorable`."""
        bins = [] if self.exponent is None else [self.first, self.exponent]
        return super().state_dict() | {"counts": self.counts.clone(), "bins": torch.tensor(bins, dtype=torch.int64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `Memorable`."""
        super().load_state_dict(state)
        self.counts, bins = state["counts"].clone(), state["bins"].tolist()
        self.first, self.exponent = (bins[0], bins[1]) if bins else (0, None)

    @property
    def width(self) -> float:
        """Width of a bin."""
        return 2.0 ** (0 if self.exponent is None else self.exponent)

    @property
    def centres(self) -> Tensor:
        """`(BINS,)` float64, the middle of each bin."""
        return (torch.arange(BINS, dtype=torch.float64) + self.first + 0.5) * self.width

    def update(self, values: Tensor) -> None:
        """Takes in one batch; see `Statistics`."""
        if not values.numel():
            return
        super().update(values)
        self._cover()
        # In float64 the edges are exact, and so is the bin of every float32 value.
        bins = torch.floor(values.detach().reshape(-1).double() / self.width).to(torch.int64) - self.first
        self.counts += torch.bincount(bins, minlength=BINS).cpu()

    def _cover(self) -> None:
        """Makes the bins wide enough for the extremes, and moves what was counted there."""
        exponent = _exponent(self.low, self.high)
        exponent = exponent if self.exponent is None else max(exponent, self.exponent)
        first = math.floor(self.low / 2.0**exponent)
        if self.exponent is not None:
            old = (torch.arange(BINS) + self.first) >> (exponent - self.exponent)
            filled = self.counts > 0
            moved = torch.zeros_like(self.counts)
            moved.index_add_(0, old[filled] - first, self.counts[filled])
            self.counts = moved
        self.first, self.exponent = first, exponent


def _exponent(low: float, high: float) -> int:
    """Returns the binary exponent of the narrowest bins of which BINS cover [low, high]."""
    largest = max(abs(low), abs(high), 2.0**SMALLEST_WIDTH)
    # Bins so narrow that their numbers pass 2^40 would tell apart values that float32 can't.
    exponent = max(math.frexp(largest)[1] - 40, SMALLEST_WIDTH)
    if high > low:
        exponent = max(math.frexp((high - low) / BINS)[1] - 1, exponent)
    while math.floor(high / 2.0**exponent) - math.floor(low / 2.0**exponent) >= BINS:
        exponent += 1
    return exponent
