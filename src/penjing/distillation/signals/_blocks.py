"""The signal "blocks": the output of every block."""

from torch import Tensor

from penjing.distillation.signals._registry import signals
from penjing.distillation.signals._regressed import Regressed


@signals.register(
    source="Li et al., Few Sample Knowledge Distillation for Efficient Network Compression, CVPR 2020, arXiv:1812.01839 "
    "(block by block); Romero et al. 2015 for one block",
    name="blocks",
)
class Blocks(Regressed):
    """Asks for what each block of the teacher gives, through a learned regressor where widths differ.

    loss = ½ · mean((t − r(s))²), over the channels and the positions that count, mean over the blocks
    """

    taps = "blocks"

    def apart(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns ½ · (t − r(s))², the mean over channels."""
        return (student - teacher).square().mean(1) / 2
