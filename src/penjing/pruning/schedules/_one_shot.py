"""Everything goes at once."""

from penjing.pruning.schedules._registry import Moment, schedules


@schedules.register(
    source="Li et al., Pruning Filters for Efficient ConvNets, 2017", removes=("weights", "channels", "branches")
)
def one_shot(progress: float, amount: float, number: float) -> Moment:
    """One shot: all goes at once, before any training."""
    return Moment(share=1.0)
