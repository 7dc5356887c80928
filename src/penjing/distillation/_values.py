"""A teacher's outputs as values to come close to."""

from torch import Tensor
from torch.nn import functional as F

from penjing.distillation._pairs import pairs
from penjing.distillation._registry import signals


@signals.register(source="Ba and Caruana 2014, Do Deep Nets Really Need to be Deep?, NeurIPS, arXiv:1312.6184")
def values(student: object, teacher: object, *, temperature: float = 4.0) -> Tensor:
    """Asks the student for the teacher's outputs themselves, by their mean squared error.

        loss = mean((student - teacher)²), over the batch and all other axes

    Unlike soft labels it sees a shift that all outputs have in common, and a single output is enough.

    Args:
        student: outputs of any shape, `(batch,)`, `(batch, columns)` or `(batch, columns, ...)`; of nested outputs, the
            mean of the losses of all floating-point tensors is taken.
        teacher: the same structure and shapes; no gradient flows into it.
        temperature: is not used, as nothing is softened; every signal is called with one.

    Returns:
        A scalar ≥ 0, in float32 or wider, in the square of the outputs' unit.

    Raises:
        PenjingError: outputs of different shapes, or outputs without floating-point numbers.
    """
    losses = [F.mse_loss(own, target) for own, target in pairs(student, teacher)]
    return sum(losses[1:], losses[0]) / len(losses)
