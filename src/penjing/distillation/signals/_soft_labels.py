"""The signal "soft_labels": class probabilities, softened by a temperature."""

import torch
from torch import Tensor
from torch.nn import functional as F

from penjing.distillation.comparison import Comparison, mean_over
from penjing.distillation.pairs import counted_for, pairs
from penjing.distillation.signals._registry import Signal, signals
from penjing.errors import PenjingError


@signals.register(
    source="Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531",
    name="soft_labels",
)
class SoftLabels(Signal):
    """Asks the student for the teacher's class probabilities, softened by a temperature."""

    by_head = True

    def __init__(self, temperature: float = 4.0) -> None:
        """Takes T > 0; larger shows more of how the wrong classes compare."""
        super().__init__()
        self.temperature = temperature

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of `soft_labels`."""
        return soft_labels(
            seen.student.outputs, seen.teacher.outputs, temperature=self.temperature, counted=seen.counted
        )


def soft_labels(student: object, teacher: object, *, temperature: float = 4.0, counted: Tensor | None = None) -> Tensor:
    """Asks the student for the teacher's class probabilities, softened by a temperature.

        loss = T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over the batch

    T² keeps the size of the gradients the same for every T, so that the weight of this loss needs no new tuning.

    Args:
        student: logits `(batch, classes)` or, for dense predictions, `(batch, classes, ...)`, averaged over positions.
            For nested outputs, the loss is the mean of the losses of all floating-point tensors.
        teacher: the same structure and shapes; no gradient flows into it.
        temperature: T > 0; larger shows more of how the wrong classes compare.
        counted: which positions count, boolean `(batch, ...)` as the logits without their classes; None for all.

    Returns:
        A scalar ≥ 0, in float32 or wider.

    Raises:
        PenjingError: the outputs have different shapes, or hold no classes to compare.
    """
    compared = pairs(student, teacher)
    if not all(holds_classes(own) for own, _ in compared):
        raise PenjingError(
            f"Soft labels compare logits (batch, classes) with two classes or more; the model gives "
            f'{[tuple(own.shape) for own, _ in compared]}. Such outputs are learnt as they are: use signal="values", '
            "or leave signal out."
        )
    losses = [
        mean_over(divergence(own, target, temperature), counted_for(own, counted)) * temperature**2
        for own, target in compared
    ]
    return sum(losses[1:], losses[0]) / len(losses)


def holds_classes(outputs: Tensor) -> bool:
    """Tells whether a tensor may be logits `(batch, classes, ...)` of two classes or more."""
    return outputs.ndim >= 2 and outputs.shape[1] >= 2


def holds_labels(outputs: Tensor, labels: Tensor) -> bool:
    """Tells whether labels are class indices `(batch, ...)` of the positions of outputs `(batch, classes, ...)`."""
    whole = not labels.is_floating_point() and labels.dtype != torch.bool
    return whole and holds_classes(outputs) and labels.shape == (outputs.shape[0], *outputs.shape[2:])


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns KL(softmax(teacher / T) ‖ softmax(student / T)) at each position: `(batch, classes, ...)` to `(batch, ...)`."""
    learned, taught = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(learned, taught, reduction="none", log_target=True).sum(1)
