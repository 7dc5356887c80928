"""The signal "logit_standardization": soft labels of standardised logits."""

from torch import Tensor
from torch.nn import functional as F

from penjing.distillation.comparison import Comparison
from penjing.distillation.pairs import pairs
from penjing.distillation.signals._registry import Signal, signals
from penjing.distillation.signals._soft_labels import holds_classes, soft_labels
from penjing.errors import PenjingError

SMALLEST = 1e-5  # added to the variance of a position's logits, since those of an untrained student may all be equal


@signals.register(
    source="Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024, arXiv:2403.01427",
    name="logit_standardization",
)
class LogitStandardization(Signal):
    """Asks for soft labels of z-scores, so that a small student needn't reach the range of its teacher's logits.

        z = (logits − their mean) / their standard deviation, over the classes of each position
        loss = T² · KL(softmax(zᵀ / T) ‖ softmax(zˢ / T)), mean over the positions that count

    T is the paper's base temperature; the paper weighs this loss by 9 and the labels by 0.1.
    """

    by_head = True

    def __init__(self, base_temperature: float = 2.0) -> None:
        """Takes T > 0, of z-scores, which are about as large whatever the network."""
        super().__init__()
        self.base_temperature = base_temperature

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch.

        Raises:
            PenjingError: outputs of different shapes, or outputs without three classes or more.
        """
        compared = pairs(seen.student.outputs, seen.teacher.outputs)
        if not all(holds_classes(own) and own.shape[1] > 2 for own, _ in compared):
            raise PenjingError(
                f"Standardised logits need three classes or more, since of two the z-scores are always −1 and 1; the model "
                f'gives {[tuple(own.shape) for own, _ in compared]}. Use signal="soft_labels" for two classes and '
                'signal="values" for other outputs.'
            )
        student, teacher = ([z_scores(logits) for logits in side] for side in zip(*compared, strict=True))
        return soft_labels(student, teacher, temperature=self.base_temperature, counted=seen.counted)


def z_scores(logits: Tensor) -> Tensor:
    """Returns logits `(batch, classes, ...)` with mean 0 and standard deviation 1 over the classes."""
    return F.layer_norm(logits.movedim(1, -1), logits.shape[1:2], eps=SMALLEST).movedim(-1, 1)
