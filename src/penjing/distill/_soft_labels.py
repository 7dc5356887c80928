"""Hinton's soft labels."""

from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from penjing.distill._registry import signals
from penjing.errors import PenjingError


@signals.register(
    source="Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531"
)
def soft_labels(student: object, teacher: object, *, temperature: float = 4.0) -> Tensor:
    """Asks the student for the teacher's class probabilities, softened by a temperature.

        loss = T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over the batch

    T² keeps the size of the gradients the same for every T, so that the weight of this loss needs no new tuning.

    Args:
        student: logits `(batch, classes)` or, for dense predictions, `(batch, classes, ...)`, averaged over positions;
            of nested outputs, the mean of the losses of all floating-point tensors is taken.
        teacher: the same structure and shapes; no gradient flows into it.
        temperature: T > 0; larger shows more of how the wrong classes compare.

    Returns:
        A scalar ≥ 0, in float32 or wider.

    Raises:
        PenjingError: outputs of different shapes, or outputs that hold no classes to compare.
    """
    learned, taught = _logits(student), _logits(teacher)
    if [tensor.shape for tensor in learned] != [tensor.shape for tensor in taught]:
        raise PenjingError(
            f"The model gives outputs of shapes {[tuple(t.shape) for t in learned]}, its teacher of "
            f"{[tuple(t.shape) for t in taught]}; to learn from a teacher they must be equal."
        )
    if not learned or any(tensor.ndim < 2 or tensor.shape[1] < 2 for tensor in learned):
        raise PenjingError(
            f"Soft labels compare logits (batch, classes) with two classes or more; the model gives "
            f"{[tuple(t.shape) for t in learned]}. Train without a teacher (teacher=None) instead."
        )
    losses = [_divergence(own, target, temperature) for own, target in zip(learned, taught, strict=True)]
    return sum(losses[1:], losses[0]) / len(losses)


def _logits(outputs: object) -> list[Tensor]:
    leaves = pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    learned, taught = (
        F.log_softmax(_rows(logits).div(temperature), dim=1)
        for logits in (student, teacher.detach().to(student.device))
    )
    return F.kl_div(learned, taught, reduction="batchmean", log_target=True) * temperature**2


def _rows(logits: Tensor) -> Tensor:
    """`(batch, classes, ...)` to `(batch · positions, classes)`, float32 or wider (bf16 is too coarse)."""
    rows = logits.movedim(1, -1).flatten(0, -2)
    return rows.float() if rows.element_size() < 4 else rows
