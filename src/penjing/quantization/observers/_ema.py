"""The range, smoothed over batches."""

from penjing.evidence.statistics import MovingExtremes
from penjing.quantization.observers._registry import observers


@observers.register(
    source="Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only "
    "Inference, section 3.1, arXiv:1712.05877",
    needs={"data"},
    statistics=MovingExtremes,
)
def ema(statistics: MovingExtremes, steps: int) -> tuple[float, float]:
    """Covers an exponential moving average of the batches' extremes: one odd batch doesn't set the range for good.

    The average begins with the first batch; "ema:0.9" gives the average a weight of 0.9 in each update. So, unlike for all
    other observers, the order of the batches and their size matter.

    Args:
        statistics: statistics of the activation.
        steps: number of steps of the grid; not used.
    """
    return statistics.average or (statistics.low, statistics.high)
