"""The signal "values": the teacher's outputs as numbers to come close to."""

from torch import Tensor

from penjing.distillation.comparison import Comparison, mean_over
from penjing.distillation.pairs import counted_for, pairs
from penjing.distillation.signals._registry import Signal, signals


@signals.register(
    source="Ba and Caruana 2014, Do Deep Nets Really Need to be Deep?, NeurIPS, arXiv:1312.6184", name="values"
)
class Values(Signal):
    """Asks the student for the teacher's outputs themselves, by their mean squared error."""

    by_head = True

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of `values`."""
        return values(seen.student.outputs, seen.teacher.outputs, counted=seen.counted)


def values(student: object, teacher: object, *, counted: Tensor | None = None) -> Tensor:
    """Asks the student for the teacher's outputs themselves, by their mean squared error.

        loss = mean((student - teacher)²), over the batch and all other axes

    Unlike soft labels it sees a shift that all outputs have in common, and a single output is enough.

    Args:
        student: outputs of any shape, `(batch,)`, `(batch, columns)` or `(batch, columns, ...)`; of nested outputs, the
            mean of the losses of all floating-point tensors is taken.
        teacher: the same structure and shapes; no gradient flows into it.
        counted: which positions count, boolean `(batch, ...)` as the outputs without their columns; None for all.

    Returns:
        A scalar ≥ 0, in float32 or wider, in the square of the outputs' unit.

    Raises:
        PenjingError: outputs of different shapes, or outputs without floating-point numbers.
    """
    losses = []
    for own, target in pairs(student, teacher):
        apart = (own - target).square()
        losses.append(mean_over(apart.mean(1) if apart.ndim > 1 else apart, counted_for(own, counted)))
    return sum(losses[1:], losses[0]) / len(losses)
