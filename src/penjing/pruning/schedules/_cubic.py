"""Many weights go at first, and few at the end."""

from penjing.pruning.schedules._registry import Moment, schedules
from penjing.registry import OwnNumber


@schedules.register(
    source="Zhu and Gupta, To Prune, or Not to Prune, 2017",
    needs={"training"},
    number=OwnNumber("share of the training in which weights go", default=0.7, lowest=0.01, highest=1.0),
)
def cubic(progress: float, amount: float, until: float) -> Moment:
    """Cubic ("cubic:0.7" of the training): 1 − (1 − t)³ of the amount is gone at time t; then the remaining weights are tuned."""
    return Moment(share=1 - (1 - min(progress / until, 1.0)) ** 3)
