"""The range with the least squared error."""

import torch
from torch import Tensor

from penjing.evidence.statistics import Histogram
from penjing.quantization.observers._registry import observers

CANDIDATES = 100  # ranges that are tried in each of the three searches


@observers.register(
    source="Nagel et al. 2021, A White Paper on Neural Network Quantization, section 3.1, arXiv:2106.08295",
    needs={"data"},
    statistics=Histogram,
)
def mse(statistics: Histogram, steps: int) -> tuple[float, float]:
    """Minimises the mean squared difference between values and quantised values, over a grid of ranges.

    First both ends shrink together, then each end on its own; the values are taken from a histogram.

    Args:
        statistics: statistics of the activation.
        steps: number of steps of the grid, which holds steps + 1 values.
    """
    low, high = min(statistics.low, 0.0), max(statistics.high, 0.0)
    if low == high:
        return low, high
    shrink = torch.linspace(1 / CANDIDATES, 1, CANDIDATES, dtype=torch.float64)
    low, high = _best(statistics, low * shrink, high * shrink, steps)
    low, high = _best(statistics, low + 0 * shrink, max(statistics.high, 0.0) * shrink, steps)
    return _best(statistics, min(statistics.low, 0.0) * shrink, high + 0 * shrink, steps)


def _best(statistics: Histogram, low: Tensor, high: Tensor, steps: int) -> tuple[float, float]:
    """Returns the range with the least error among `low` and `high`, both `(candidates,)`."""
    best = int(squared_errors(statistics, low, high, steps).argmin())
    return float(low[best]), float(high[best])


def squared_errors(statistics: Histogram, low: Tensor, high: Tensor, steps: int) -> Tensor:
    """Returns the summed squared error of rounding all values, for each range from `low` to `high`, `(candidates,)`."""
    scale = ((high - low) / steps).clamp_min(torch.finfo(torch.float64).tiny)
    filled = statistics.counts > 0
    values, weights = statistics.centres[filled], statistics.counts[filled]
    zero = torch.round(-low / scale)
    level = torch.round(values / scale[:, None]) + zero[:, None]
    error = (level.clamp(0, steps) - zero[:, None]) * scale[:, None] - values
    return error.square() @ weights
