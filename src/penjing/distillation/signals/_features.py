"""The signal "features": the features at each position, for networks that answer at each position."""

from torch import Tensor

from penjing.distillation.inner import unit
from penjing.distillation.signals._registry import signals
from penjing.distillation.signals._regressed import Regressed


@signals.register(
    source="Wang et al., Distilling Object Detectors with Fine-grained Feature Imitation, CVPR 2019, "
    "arXiv:1906.03609 (with vectors of length 1)",
    name="features",
)
class Features(Regressed):
    """Asks at each position that counts for the direction of the teacher's feature vector, for detectors and segmenters.

        loss = 1 / (2 · positions) · Σ over positions of ‖t / ‖t‖ − r(s) / ‖r(s)‖‖²

    t and r(s) are the vectors over channels at one position; r is learned where widths differ. The paper has the vectors as
    they are and counts the positions near objects; of length 1, every position weighs the same, however bright, and what
    is compared is the cosine: half of the squared distance is 1 − cos. Positions that don't count are left out.
    """

    taps = "last"

    def apart(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns half of the squared distance of the vectors over channels, both of length 1."""
        return (unit(student) - unit(teacher)).square().sum(1) / 2
