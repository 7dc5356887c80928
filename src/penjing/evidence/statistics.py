"""Statistics of a stream of tensors in constant memory: extremes, their moving averages, histograms."""

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from penjing.errors import PenjingError

BINS = 4096  # bins of a histogram
SMALLEST_WIDTH = -126  # binary exponent of the narrowest bin's width: smaller float32 numbers lose precision


class NotFinite(ValueError):
    """Values hold NaN or infinity; the caller, which knows where the values come from, tells the user."""


class Accumulator(Protocol):
    """A statistic of a stream of tensors; its size doesn't depend on the number of tensors.

    A class with `whole_batches = True` depends on which values come together in a batch.
    """

    def update(self, values: Tensor) -> None:
        """Takes in one batch, of any shape.

        Raises:
            NotFinite: the batch holds NaN or infinity.
        """


@runtime_checkable
class Memorable(Accumulator, Protocol):
    """An accumulator whose state can be saved and loaded into another one of its kind.

    Attributes:
        kind: identifies accumulators that keep the same state for the same values.
    """

    @property
    def kind(self) -> str:
        """See above."""

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the state."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replaces the state by that of another accumulator."""


def can_be_remembered(statistics: Accumulator) -> bool:
    """Tells whether the very class of a statistic defines its state: the additions of a subclass would be lost."""
    return isinstance(statistics, Memorable) and "state_dict" in vars(type(statistics))


class Statistics(Accumulator, Protocol):
    """The statistics that an observer reads.

    Attributes:
        low: the smallest of all values; infinity before the first batch.
        high: the largest of all values; minus infinity before the first batch.
    """

    low: float
    high: float


def extremes(values: Tensor) -> tuple[float, float]:
    """Returns the smallest and the largest of some values.

    Raises:
        NotFinite: a value is NaN or infinite; this shows in the extremes, so no other check is needed.
    """
    if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)  # in the order of memory: `aminmax` would copy otherwise
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
        """Returns the extremes of one batch, and widens the overall extremes by them."""
        low, high = extremes(values)
        self.low, self.high = min(self.low, low), max(self.high, high)
        return low, high


class MovingExtremes(Extremes):
    """Extremes of all values, and exponential averages over batches of each batch's extremes.

    Attributes:
        average: averages of the batches' smallest and largest values; None before the first batch.
        momentum: weight of the previous average when a batch comes in.
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
    """Extremes, and counts of values in bins of equal width that cover the extremes.

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
        """Makes the bins wide enough for the extremes, and moves the counts to the new bins."""
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
    """Returns the binary exponent of the smallest width with which BINS bins cover [low, high]."""
    largest = max(abs(low), abs(high), 2.0**SMALLEST_WIDTH)
    # Bins whose indices exceed 2^40 would be narrower than float32's precision there.
    exponent = max(math.frexp(largest)[1] - 40, SMALLEST_WIDTH)
    if high > low:
        exponent = max(math.frexp((high - low) / BINS)[1] - 1, exponent)
    while math.floor(high / 2.0**exponent) - math.floor(low / 2.0**exponent) >= BINS:
        exponent += 1
    return exponent
