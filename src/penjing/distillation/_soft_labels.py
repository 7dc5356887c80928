"""Hinton's soft labels: the signal that compares class probabilities."""

from torch import Tensor
from torch.nn import functional as F

from penjing.distillation._pairs import pairs
from penjing.distillation._registry import signals
from penjing.errors import PenjingError


@signals.register(
    source="Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531"
)
def soft_labels(student: object, teacher: object, *, temperature: float = 4.0) -> Tensor:
    """Lets the student learn the teacher's class probabilities, softened by a temperature.

        loss = T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over the batch

    T² keeps the size of the gradients the same for every T, so that the weight of this loss needs no new tuning.

    Args:
        student: logits `(batch, classes)` or, for dense predictions, `(batch, classes, ...)`, averaged over positions.
            For nested outputs, the loss is the mean of the losses of all floating-point tensors.
        teacher: the same structure and shapes; no gradient flows into it.
        temperature: T > 0; a larger one shows more of the differences between the wrong classes.

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
    losses = [_divergence(own, target, temperature) for own, target in compared]
    return sum(losses[1:], losses[0]) / len(losses)


def holds_classes(outputs: Tensor) -> bool:
    """Tells whether a tensor may be logits `(batch, classes, ...)` of two classes or more."""
    return outputs.ndim >= 2 and outputs.shape[1] >= 2


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    learned, taught = (F.log_softmax(_rows(logits).div(temperature), dim=1) for logits in (student, teacher))
    return F.kl_div(learned, taught, reduction="batchmean", log_target=True) * temperature**2


def _rows(logits: Tensor) -> Tensor:
    """Reshapes `(batch, classes, ...)` to `(batch · positions, classes)`."""
    return logits.movedim(1, -1).flatten(0, -2)
