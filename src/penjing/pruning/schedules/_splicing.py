"""Pruned weights may return."""

from penjing.pruning.schedules._registry import Moment, schedules
from penjing.registry import OwnNumber

RAMP = 0.5  # share of the time in which masks change: the amount grows until then


@schedules.register(
    source="Guo et al., Dynamic Network Surgery for Efficient DNNs, 2016",
    needs={"training"},
    number=OwnNumber("share of the training in which masks change", default=0.7, lowest=0.01, highest=1.0),
)
def splicing(progress: float, amount: float, until: float) -> Moment:
    """Dynamic network surgery ("splicing:0.7" of the training): pruned weights go on learning, and those that matter return.

    A weight goes when it falls below one threshold and returns when it rises above a higher one. The thresholds are those of
    an exact amount, which grows as in `cubic` over the first half of the time in which masks change. In the paper they are
    multiples of a layer's mean and standard deviation from the start, and masks change with falling probability; here they
    change at even intervals.
    """
    share = 1 - (1 - min(progress / (RAMP * until), 1.0)) ** 3
    return Moment(share=share, returns=progress < until)
