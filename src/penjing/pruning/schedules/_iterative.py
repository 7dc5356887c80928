"""Prunes and trains in turn, as long as the metric holds."""

from penjing.pruning.schedules._registry import Moment, evenly, round_at, schedules
from penjing.registry import OwnNumber


@schedules.register(
    source="Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015",
    needs={"training", "validation"},
    number=OwnNumber("number of rounds", default=10, lowest=1, highest=1000),
    trainings=int,
)
def iterative(progress: float, amount: float, rounds: float) -> Moment:
    """Iterative ("iterative:10" rounds): prune, train, measure, until the metric has fallen by more than `drop`.

    Each round prunes the same share of what is left, so that the last round reaches the amount. The result is the state
    before the round that cost too much.
    """
    return Moment(share=evenly((round_at(progress, rounds) + 1) / rounds, amount))
