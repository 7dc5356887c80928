"""The signal "hints": an inner value in the middle of the network, as in FitNets."""

from torch import Tensor

from penjing.distillation.signals._registry import signals
from penjing.distillation.signals._regressed import Regressed


@signals.register(
    source="Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, equation 3, arXiv:1412.6550", name="hints"
)
class Hints(Regressed):
    """Asks for the teacher's inner value in the middle of the network, through a learned regressor where widths differ.

        loss = ½ · mean((t − r(s))²), over the channels and the positions that count

    The paper has the sum, ½ · ‖t − r(s)‖²; the mean is that sum over the number of its terms, so that the loss is about as
    large for every resolution. The paper trains by this loss alone first: schedule="staged".
    """

    taps = "middle"

    def apart(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns ½ · (t − r(s))², the mean over channels."""
        return (student - teacher).square().mean(1) / 2
