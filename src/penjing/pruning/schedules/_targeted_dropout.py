"""Dropout of the weights or units that will go."""

from penjing.pruning.schedules._registry import Moment, schedules
from penjing.registry import OwnNumber

DROPS = 0.8  # share of the training with dropout


@schedules.register(
    source="Gomez et al., Learning Sparse Networks Using Targeted Dropout, 2019",
    needs={"training"},
    number=OwnNumber("largest probability", default=0.99, lowest=0.0, highest=1.0),
)
def targeted_dropout(progress: float, amount: float, largest: float) -> Moment:
    """Targeted dropout ("targeted_dropout:0.99"): steps drop some of the weakest weights, so that the others do without them.

    The probability rises linearly (the paper's "ramping") for four fifths of the training. Then the weakest weights go, and
    the others are tuned for the rest of the training; the paper doesn't tune them.
    """
    return Moment(dropout=largest * progress / DROPS) if progress < DROPS else Moment(share=1.0)
