"""The range with the least squared error, found by moving its ends inwards step by step."""

import bisect

import torch
from torch import Tensor

from penjing.evidence.statistics import Histogram
from penjing.quantization.observers._mse import squared_errors
from penjing.quantization.observers._registry import observers

SHARE = 1e-5  # share of all values that one step of the search leaves out


@observers.register(
    source="PyTorch, torch.ao.quantization.HistogramObserver, after Caffe2's norm minimisation "
    "(caffe2/quantization/server/norm_minimization.cc)",
    needs={"data"},
    statistics=Histogram,
)
def histogram(statistics: Histogram, steps: int) -> tuple[float, float]:
    """Drops values from the end where that shortens the range more, a share at a time, while the squared error falls.

    Unlike `mse`, this observer leaves out shares of the values instead of trying shares of the range, moves one end at a
    time, and stops at the first minimum, which may be the whole range. Three things differ from PyTorch's observer. All
    batches are counted in the same bins, instead of being spread over new bins. The error is that of the grid which
    the range gives, with 0 on it; PyTorch counts half a step for each 0 behind a ReLU. Where neither end shortens the range
    more, both move; in PyTorch only the upper end does, so that with few values the lower one never moves.

    Args:
        statistics: statistics of the activation.
        steps: number of steps of the grid, which holds steps + 1 values.
    """
    cumulative = (statistics.counts.cumsum(0) / statistics.counts.sum()).tolist()
    start, end = bisect.bisect_right(cumulative, 0.0), bisect.bisect_left(cumulative, cumulative[-1])
    below, above, least = 0.0, 1.0, _error(statistics, start, end, steps)
    while below + SHARE < above - SHARE:
        left = min(max(bisect.bisect_left(cumulative, below + SHARE), start), end)
        right = max(min(bisect.bisect_left(cumulative, above - SHARE), end), start)
        shorter = (left - start) - (end - right)
        moved = (left if shorter >= 0 else start, right if shorter <= 0 else end)
        below, above = below + SHARE * (shorter >= 0), above - SHARE * (shorter <= 0)
        if moved == (start, end):
            continue
        error = _error(statistics, *moved, steps)
        if error > least:
            break
        least, (start, end) = error, moved
    low, high = _edges(statistics, start, end)
    return float(low), float(high)


def _edges(statistics: Histogram, start: int, end: int) -> tuple[Tensor, Tensor]:
    """Returns the lower edge of bin `start` and the upper edge of bin `end`, or the extremes inside them, both `(1,)`."""
    edges = torch.tensor([statistics.first + start, statistics.first + end + 1], dtype=torch.float64) * statistics.width
    low, high = edges.clamp(statistics.low, statistics.high).split(1)
    return low, high


def _error(statistics: Histogram, start: int, end: int, steps: int) -> float:
    low, high = _edges(statistics, start, end)
    return float(squared_errors(statistics, low.clamp_max(0), high.clamp_min(0), steps))
