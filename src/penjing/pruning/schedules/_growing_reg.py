"""Regularisation makes weights small before they go."""

from penjing.pruning.schedules._registry import Moment, schedules
from penjing.registry import OwnNumber

GROWS = 0.5  # share of the training in which the regularisation grows


@schedules.register(
    source="Wang et al., Neural Pruning via Growing Regularization, 2021",
    needs={"training"},
    number=OwnNumber("largest strength of the regularisation", default=1.0, lowest=0.0, highest=1000.0),
)
def growing_reg(progress: float, amount: float, largest: float) -> Moment:
    """Growing regularisation ("growing_reg:1"): L2 on chosen weights grows linearly for half of the training; then they go.

    This is GReg-1, which chooses the weights at the start. In the paper the strength grows by a fixed step every few
    iterations, up to the same limit, and stays there for a while.
    """
    if progress < GROWS:
        return Moment(decay=largest * progress / GROWS)
    return Moment(share=1.0)
