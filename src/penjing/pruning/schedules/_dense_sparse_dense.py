"""Weights are pruned for a while, so that the whole network trains better."""

from penjing.pruning.schedules._registry import Moment, schedules
from penjing.registry import OwnNumber


@schedules.register(
    source="Han et al., DSD: Dense-Sparse-Dense Training for Deep Neural Networks, 2017",
    needs={"training"},
    number=OwnNumber("share of the training that is sparse", default=2 / 3, lowest=0.01, highest=0.99),
    removes=("weights",),
)
def dense_sparse_dense(progress: float, amount: float, sparse: float) -> Moment:
    """Dense-sparse-dense: trains without the weakest weights, then with them from zero on; no weight is gone in the end.

    The paper trains its last phase at a tenth of the learning rate. The last third of a cosine schedule has about the same
    learning rate on average.
    """
    return Moment(share=1.0 if progress < sparse else 0.0)
