"""Dropout of what is to go."""

from penjing.pruning.schedules._registry import Moment, ScheduleNumber, schedules

DROPS = 0.8  # share of the training


@schedules.register(
    source="Gomez et al., Learning Sparse Networks Using Targeted Dropout, 2019",
    needs={"training"},
    number=ScheduleNumber("largest probability", default=0.99, lowest=0.0, highest=1.0),
)
def targeted_dropout(progress: float, amount: float, largest: float) -> Moment:
    """Targeted dropout ("targeted_dropout:0.99"): each step leaves out some of what would go; so the rest learns to do without.

    The probability rises along a line (the paper's "ramping") for four fifths of the training; then all of it goes, and
    the rest is tuned, which the paper does without.
    """
    return Moment(dropout=largest * progress / DROPS) if progress < DROPS else Moment(share=1.0)
