"""Pairs the tensors of a student's outputs with those of its teacher's outputs."""

from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.errors import PenjingError


def floating(outputs: object) -> list[Tensor]:
    """Returns the floating-point tensors of nested outputs, in order."""
    leaves = pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def pairs(student: object, teacher: object) -> list[tuple[Tensor, Tensor]]:
    """Returns each floating-point tensor of the student with its teacher's, which is detached and on the same device.

    Both are in float32 or wider, since bf16 is too coarse to sum losses in.

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
    return [(_wide(own), _wide(target.detach().to(own.device))) for own, target in zip(learned, taught, strict=True)]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.element_size() < 4 else tensor
