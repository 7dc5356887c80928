"""Pairs the tensors of a student's outputs with those of its teacher's outputs."""

from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.distillation.positions import position_weights
from penjing.errors import PenjingError


def floating(outputs: object) -> list[Tensor]:
    """Returns the floating-point tensors of nested outputs, in order."""
    leaves = pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def pairs(student: object, teacher: object) -> list[tuple[Tensor, Tensor]]:
    """Returns each floating-point tensor of the student with its teacher's, which is detached and on the same device.

    Both are in float32 or wider.

    Raises:
        PenjingError: the two give tensors of different shapes, or none at all.
    """
    learned, taught = floating(student), floating(teacher)
    if [tensor.shape for tensor in learned] != [tensor.shape for tensor in taught]:
        raise PenjingError(
            f"The model gives outputs of shapes {[tuple(t.shape) for t in learned]}, its teacher of "
            f"{[tuple(t.shape) for t in taught]}; to learn from a teacher they must be equal."
        )
    if not learned:
        raise PenjingError(
            "The model gives no floating-point tensor that it could compare with its teacher's. "
            "Train without a teacher (teacher=None) instead."
        )
    return [(wide(own), wide(target.detach().to(own.device))) for own, target in zip(learned, taught, strict=True)]


def wide(tensor: Tensor) -> Tensor:
    """Returns a tensor in float32, or as it is where it is wider: bf16 is too coarse to sum losses in."""
    return tensor.float() if tensor.element_size() < 4 else tensor


def counted_for(outputs: Tensor, counted: Tensor | None) -> Tensor | None:
    """Returns how much each position of outputs `(batch, classes, ...)` counts, `(batch, ...)`; None where all do alike.

    Among nested outputs may be some whose positions aren't those of the labels, such as boxes beside a map of classes: of
    these, all count.
    """
    positions = outputs.ndim - 2
    if counted is None or outputs.ndim < 2 or len(counted) != len(outputs):
        return None
    if counted.ndim > 1 and positions not in (0, counted.ndim - 1):
        return None
    return position_weights(counted, (len(outputs), *outputs.shape[2:]))
