"""Lottery tickets."""

from penjing.pruning.schedules._registry import Moment, ScheduleNumber, evenly, round_at, schedules

EARLY = 0.05  # share of the first training


@schedules.register(
    source="Frankle and Carbin, The Lottery Ticket Hypothesis, 2019; Frankle et al., Linear Mode Connectivity, 2020",
    needs={"training"},
    number=ScheduleNumber("number of rounds", default=5, lowest=1, highest=1000),
    trainings=lambda rounds: int(rounds) + 1,
)
def rewind(progress: float, amount: float, rounds: float) -> Moment:
    """Rewinding ("rewind:5" rounds): train, prune, go back to the weights of an early moment, train again with masks.

    Each round takes the same share of what is left. The early moment is a twentieth of the first training. Every training
    has a learning rate of its own, from its warm-up on; in the paper it goes on from where the early moment left it.
    """
    number = round_at(progress, rounds + 1)
    return Moment(share=evenly(number / rounds, amount), saves=progress * (rounds + 1) <= EARLY, rewind=number > 0)
