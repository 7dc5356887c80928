"""The signal "hard_labels": the teacher's answers as labels."""

from torch import Tensor
from torch.nn import functional as F

from penjing.distillation.comparison import Comparison, mean_over
from penjing.distillation.pairs import counted_for, pairs
from penjing.distillation.signals._registry import Signal, signals
from penjing.distillation.signals._soft_labels import holds_classes
from penjing.errors import PenjingError


@signals.register(
    source="Touvron et al., Training data-efficient image transformers & distillation through attention, 2021, equation 3, "
    "arXiv:2012.12877",
    name="hard_labels",
)
class HardLabels(Signal):
    """Takes the class that the teacher finds most probable for the label.

    loss = cross-entropy(student, argmax teacher), mean over the positions that count
    """

    by_head = True

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch; of nested outputs, the mean over their tensors.

        Raises:
            PenjingError: outputs of different shapes, or outputs that hold no classes.
        """
        compared = pairs(seen.student.outputs, seen.teacher.outputs)
        if not all(holds_classes(own) for own, _ in compared):
            raise PenjingError(
                f"The teacher's answers as labels need logits (batch, classes, ...) of two classes or more; the model gives "
                f'{[tuple(own.shape) for own, _ in compared]}. Use signal="values" for such outputs.'
            )
        losses = [
            mean_over(F.cross_entropy(own, target.argmax(1), reduction="none"), counted_for(own, seen.counted))
            for own, target in compared
        ]
        return sum(losses[1:], losses[0]) / len(losses)
