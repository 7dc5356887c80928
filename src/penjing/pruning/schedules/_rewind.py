"""Lottery tickets: after pruning, training starts again from early weights."""

from penjing.pruning.schedules._registry import Moment, evenly, round_at, schedules
from penjing.registry import OwnNumber

EARLY = 0.05  # share of the first training at which the early weights are saved


@schedules.register(
    source="Frankle and Carbin, The Lottery Ticket Hypothesis, 2019; Frankle et al., Linear Mode Connectivity, 2020",
    needs={"training"},
    number=OwnNumber("number of rounds", default=5, lowest=1, highest=1000),
    trainings=lambda rounds: int(rounds) + 1,
)
def rewind(progress: float, amount: float, rounds: float) -> Moment:
    """Rewinding ("rewind:5" rounds): train, prune, go back to the weights of an early moment, train again with masks.

    Each round prunes the same share of what is left. The early moment comes after a twentieth of the first training. Every
    training starts a learning-rate schedule of its own, with a warm-up; in the paper the schedule goes on from the early
    moment.
    """
    number = round_at(progress, rounds + 1)
    return Moment(share=evenly(number / rounds, amount), saves=progress * (rounds + 1) <= EARLY, rewind=number > 0)
