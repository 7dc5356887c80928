"""The group lasso draws whole units of channels to zero."""

import torch
from torch import Tensor

from penjing.penalties._registry import penalties
from penjing.penalties._structure import Structure


@penalties.register(
    source="Wen et al., Learning Structured Sparsity in Deep Neural Networks, 2016; Yuan & Lin, 2006",
    needs={"training"},
    of="units",
    weight=1e-4,
)
def group_lasso(structure: Structure) -> Tensor:
    """Sum of the l2 norms of all units of channels, Σ ‖w_u‖; all parameters of a unit stand in one norm.

    The paper has one norm for each filter and one for each input channel of each layer. Here the channel graph says what goes
    together: a unit holds its rows in the layers that make it, its entries in norms and biases, and its columns in the layers
    that read it, so that either all of these go to zero or none. A unit of zeros has a gradient of zeros.
    """
    # Below the smallest normal number the root's slope would be infinite, and infinity times 0 is NaN.
    return torch.cat([
        squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt() for squares in structure.unit_squares()
    ]).sum()  # fmt: skip
