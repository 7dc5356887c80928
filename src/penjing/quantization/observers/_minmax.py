"""The range of all values seen."""

from penjing.evidence.statistics import Extremes
from penjing.quantization.observers._registry import observers


@observers.register(
    source="Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only "
    "Inference, arXiv:1712.05877",
    needs={"data"},
    statistics=Extremes,
)
def minmax(statistics: Extremes, steps: int) -> tuple[float, float]:
    """Covers everything from the smallest to the largest value: clips nothing, and one outlier makes all steps coarse.

    Args:
        statistics: statistics of the activation.
        steps: number of steps of the grid; not used.
    """
    return statistics.low, statistics.high
