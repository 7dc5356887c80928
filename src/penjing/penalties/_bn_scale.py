"""The l1 norm of the norms' scales draws channels to zero."""

import torch
from torch import Tensor

from penjing.penalties._registry import penalties
from penjing.penalties._structure import Structure


@penalties.register(
    source="Liu et al., Learning Efficient Convolutional Networks through Network Slimming, 2017",
    needs={"training"},
    of="scales",
    weight=1e-4,
)
def bn_scale(structure: Structure) -> Tensor:
    """Network slimming: Σ |γ| over the scales of the norms on channels that can be removed."""
    return torch.stack([scale.abs().sum() for scale in structure.scales()]).sum()
