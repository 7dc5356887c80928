"""The range without the rarest values."""

import torch

from penjing.errors import PenjingError
from penjing.evidence.statistics import Histogram
from penjing.quantization.observers._registry import observers


@observers.register(
    source="McKinstry et al. 2019, Discovering Low-Precision Networks Close to Full-Precision Networks, "
    "arXiv:1809.04191; Wu et al. 2020, Integer Quantization for Deep Learning Inference, arXiv:2004.09602",
    needs={"data"},
    statistics=Histogram,
)
def percentile(statistics: Histogram, steps: int, percent: float = 99.99) -> tuple[float, float]:
    """Leaves out the same share of values at either end: they are clipped, and the steps become finer.

    The ends are read from a histogram and are exact to one of its bins, at most 1/2048 of the range.

    Args:
        statistics: statistics of the activation.
        steps: number of steps of the grid; not used.
        percent: percentile at which the upper end lies; the lower end lies at 100 − percent.

    Raises:
        PenjingError: percent isn't above 50 and at most 100.
    """
    if not 50 < percent <= 100:
        raise PenjingError(f"The percentile must be above 50 and at most 100, not {percent:g}.")
    cumulative = statistics.counts.cumsum(0)
    share = (100 - percent) / 100 * float(cumulative[-1])
    below = int(torch.searchsorted(cumulative, share, right=True))
    above = int(torch.searchsorted(cumulative, float(cumulative[-1]) - share))
    low = (statistics.first + below) * statistics.width
    high = (statistics.first + above + 1) * statistics.width
    return max(low, statistics.low), min(high, statistics.high)
