"""An L1 penalty draws the scales of norms to zero before channels go."""

from penjing.pruning.schedules._registry import Moment, schedules
from penjing.registry import OwnNumber

SPARSITY = 0.5  # share of the training with the penalty


@schedules.register(
    source="Liu et al., Learning Efficient Convolutional Networks through Network Slimming, 2017",
    needs={"training"},
    number=OwnNumber("strength of the L1 regularisation", default=1e-4, lowest=0.0, highest=1000.0),
    removes=("channels",),
)
def lasso_bn(progress: float, amount: float, strength: float) -> Moment:
    """Network slimming ("lasso_bn:1e-4"): L1 on the norms' scales for half of the training; then channels go.

    Use it with the criterion "bn_scale", which reads these scales. The paper's strength of 1e-4 is for 160 epochs; shorter
    trainings need more.
    """
    return Moment(sparsity=strength) if progress < SPARSITY else Moment(share=1.0)
