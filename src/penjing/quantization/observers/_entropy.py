"""The range that best preserves the distribution of the values."""

import torch
from torch import Tensor

from penjing.evidence.statistics import Histogram
from penjing.quantization.observers._registry import observers

CANDIDATES = 128  # ranges that are tried
SMOOTHING = 1e-4  # count that replaces a count of zero, as in ONNX Runtime and MXNet


@observers.register(
    source="Migacz 2017, 8-bit Inference with TensorRT, GPU Technology Conference S7310; ONNX Runtime, "
    "quantization/calibrate.py",
    needs={"data"},
    statistics=Histogram,
)
def entropy(statistics: Histogram, steps: int) -> tuple[float, float]:
    """Minimises the Kullback–Leibler divergence of the rounded from the unrounded distribution, over a grid of ranges.

    A candidate range is [-t, t], cut to the values seen, so that one-sided and lopsided values get all levels of the grid.
    The reference distribution is the histogram inside the range, with the counts beyond it added to its outermost bins. The
    rounded distribution spreads the count of each level of the grid, zero included, evenly over those bins of the level
    that hold values. (ONNX Runtime cuts a symmetric window into equal pieces instead.) As in TensorRT, the bin that
    holds 0 counts no more than its neighbours: most values behind a ReLU are exactly 0, and rounding doesn't change these.

    Args:
        statistics: statistics of the activation.
        steps: number of steps of the grid, which holds steps + 1 values. With more levels than bins there is nothing to
            choose, and the whole range is taken.
    """
    low, high = min(statistics.low, 0.0), max(statistics.high, 0.0)
    if low == high:
        return low, high
    bound = torch.linspace(1 / CANDIDATES, 1, CANDIDATES, dtype=torch.float64) * max(-low, high)
    lows, highs = (-bound).clamp_min(low), bound.clamp_max(high)
    inside = _inside(statistics, lows, highs)
    enough = inside.sum(1) > steps  # with fewer bins than levels, rounding would seem to change nothing
    enough[-1] = True
    lows, highs, inside = lows[enough], highs[enough], inside[enough]
    best = int(_divergences(statistics, lows, highs, inside, steps).argmin())
    return float(lows[best]), float(highs[best])


def _inside(statistics: Histogram, lows: Tensor, highs: Tensor) -> Tensor:
    """Returns whether each bin's middle lies in each range, `(candidates, bins)`; the widest range holds all filled bins."""
    centres = statistics.centres.clamp(statistics.low, statistics.high)
    return (centres >= lows[:, None]) & (centres <= highs[:, None])


def _divergences(statistics: Histogram, lows: Tensor, highs: Tensor, inside: Tensor, steps: int) -> Tensor:
    """Returns KL(reference ‖ rounded) for each candidate range, `(candidates,)`."""
    counts = _without_zeros(statistics)
    kept = counts * inside
    reference = kept.clone()
    positions = torch.arange(len(counts))
    first = torch.where(inside, positions, len(counts)).amin(1)
    last = torch.where(inside, positions, -1).amax(1)
    beyond = counts - kept
    reference.scatter_add_(1, first[:, None], (beyond * (positions < first[:, None])).sum(1, keepdim=True))
    reference.scatter_add_(1, last[:, None], (beyond * (positions > last[:, None])).sum(1, keepdim=True))

    scale = ((highs - lows) / steps)[:, None]
    level = torch.round(statistics.centres / scale) + torch.round(-lows[:, None] / scale)
    level = level.clamp(0, steps).to(torch.int64)
    holds = (reference > 0).to(counts.dtype)
    table = torch.zeros(len(lows), steps + 1, dtype=counts.dtype)
    sums = table.scatter_add(1, level, kept).gather(1, level)
    shared = table.scatter_add(1, level, holds).gather(1, level)
    rounded = holds * sums / shared.clamp_min(1)
    p, q = _smoothed(reference, inside), _smoothed(rounded, inside)
    return torch.where(inside, p * (p / q).log(), 0.0).sum(1)


def _without_zeros(statistics: Histogram) -> Tensor:
    """Returns the counts, where the bin that holds 0 counts at most as much as its larger neighbour."""
    counts, zero = statistics.counts, -statistics.first
    if not 0 <= zero < len(counts):
        return counts
    beside = counts[max(zero - 1, 0) : zero + 2].clone()
    beside[min(zero, 1)] = 0
    counts = counts.clone()
    counts[zero] = counts[zero].minimum(beside.amax())
    return counts


def _smoothed(counts: Tensor, inside: Tensor) -> Tensor:
    """Returns probabilities; empty bins get a tiny one, taken from the others. Outside of the range the value 1 stands."""
    empty = inside & (counts <= 0)
    filled = inside & (counts > 0)
    taken = SMOOTHING * empty.sum(1, keepdim=True) / filled.sum(1, keepdim=True).clamp_min(1)
    given = torch.where(empty, SMOOTHING, (counts - taken).clamp_min(SMOOTHING))
    given = torch.where(inside, given, 0.0)
    return torch.where(inside, given / given.sum(1, keepdim=True), 1.0)
