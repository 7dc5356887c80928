"""The answers of several teachers become one: what they must have in common, and the mixture of their probabilities."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.distillation.pairs import floating, wide
from penjing.distillation.signals import suited
from penjing.distillation.teachers._registry import Lesson
from penjing.errors import PenjingError


def all_answers(networks: Sequence[Any], lesson: Lesson) -> list[Any]:
    """Returns the outputs of each network for the batch.

    Raises:
        PenjingError: they disagree in the shapes of their outputs.
    """
    outputs = [lesson.run(network, lesson.inputs) for network in networks]
    shapes = [[tuple(tensor.shape) for tensor in floating(one)] for one in outputs]
    for number, other in enumerate(shapes[1:], start=2):
        if other != shapes[0]:
            raise PenjingError(
                f"The teachers disagree: teacher 1 gives outputs of shapes {shapes[0]}, and teacher {number} of {other}. "
                "Teachers of one student must give outputs of the same shapes, such as logits of the same classes."
            )
    return outputs


def joined(outputs: Sequence[Any], join: Callable[[Tensor], Tensor]) -> Any:
    """Returns outputs as the first teacher nests them, with each floating-point tensor joined over the teachers.

    Args:
        outputs: those of each teacher, of equal shapes.
        join: from the values of all teachers, `(teachers, N, ...)` in float32 or wider, to one of `(N, ...)`.
    """
    columns = zip(*(floating(one) for one in outputs), strict=True)
    made = iter([join(torch.stack([wide(tensor) for tensor in column])) for column in columns])
    leaves, structure = pytree.tree_flatten(outputs[0])
    taken = [next(made) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf for leaf in leaves]
    return pytree.tree_unflatten(taken, structure)


def hold_values(kind: str, outputs: Sequence[Any]) -> bool:
    """Tells whether outputs are values, rather than logits of classes; see `suited`."""
    return suited(kind, outputs[0]) == "values"


def log_mixture(logits: Tensor, log_weights: Tensor) -> Tensor:
    """Returns log Σₖ wₖ softmax(logitsₖ): the logarithms of the probabilities that a weighted average of teachers gives.

    They are logits whose softmax is that average, so that every signal of outputs understands them.

    Args:
        logits: of each teacher, `(teachers, N, classes, ...)`.
        log_weights: log wₖ, which broadcasts to these; weights that add up to 1 over the teachers.
    """
    return (logits.log_softmax(2) + log_weights).logsumexp(0)
