"""The signal that compares output values as they are."""

from torch import Tensor
from torch.nn import functional as F

from penjing.distillation._pairs import pairs
from penjing.distillation._registry import signals


@signals.register(source="Ba and Caruana 2014, Do Deep Nets Really Need to be Deep?, NeurIPS, arXiv:1312.6184")
def values(student: object, teacher: object, *, temperature: float = 4.0) -> Tensor:
    """Lets the student learn the teacher's outputs themselves, by their mean squared error.

        loss = mean((student - teacher)²), over the batch and all other axes

    Unlike soft labels, this loss sees a shift that all outputs have in common, and a single output is enough.

    Args:
        student: outputs of any shape, `(batch,)`, `(batch, columns)` or `(batch, columns, ...)`. For nested outputs, the
            loss is the mean of the losses of all floating-point tensors.
        teacher: the same structure and shapes; no gradient flows into it.
        temperature: not used, as nothing is softened here; every signal is called with a temperature.

    Returns:
        A scalar ≥ 0, in float32 or wider, in the square of the outputs' unit.

    Raises:
        PenjingError: the outputs have different shapes, or hold no floating-point numbers.
    """
    losses = [F.mse_loss(own, target) for own, target in pairs(student, teacher)]
    return sum(losses[1:], losses[0]) / len(losses)
