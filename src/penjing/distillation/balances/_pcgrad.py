"""The balance "pcgrad": neither gradient works against the other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from penjing.distillation.balances._registry import Backward, Balance, balances


@balances.register(
    source="Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, arXiv:2001.06782", name="pcgrad"
)
class PCGrad(Balance):
    """Takes out of each of the two gradients what points against the other, and adds them.

    Where g · h < 0, g becomes g − (g · h / h · h) h and h likewise, each with the other as it was; all parameters are one
    vector. It measures the share of the steps in which the two conflicted.
    """

    surgery = True
    steps: Tensor
    conflicts: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("steps", "conflicts"):
            self.register_buffer(name, torch.zeros(()))

    def combined(self, task: Tensor, guidance: Tensor) -> Tensor:
        """Returns the plain sum, whose gradient is that of a step without conflict."""
        return task + guidance

    def backward(self, task: Tensor, guidance: Tensor, parameters: Sequence[Tensor], backward: Backward) -> None:
        """Adds the two gradients, without what conflicts."""
        before = [parameter.grad for parameter in parameters]
        found = []
        for loss, again in ((task, True), (guidance, False)):
            for parameter in parameters:
                parameter.grad = None
            if loss.requires_grad:  # one of the two may depend on frozen parameters alone
                loss.backward(retain_graph=again)  # type: ignore[no-untyped-call]
            found.append([parameter.grad for parameter in parameters])
        dot = _dot(found[0], found[1])
        self.steps += 1
        scale = [0.0, 0.0]
        if dot < 0:
            self.conflicts += 1
            scale = [dot / _dot(found[1], found[1]), dot / _dot(found[0], found[0])]
        # (g − a·h) + (h − b·g) = (1 − b)·g + (1 − a)·h
        for parameter, old, own, other in zip(parameters, before, *found, strict=True):
            parts = [old] if old is not None else []
            parts += [(1 - scale[1]) * own] if own is not None else []
            parts += [(1 - scale[0]) * other] if other is not None else []
            parameter.grad = sum(parts[1:], parts[0]) if parts else None

    def measured(self) -> dict[str, float]:
        """Returns the share of the steps in which the gradients conflicted."""
        return {"conflicts": float(self.conflicts / self.steps)} if self.steps else {}


def _dot(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> float:
    terms = [(a * b).sum() for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return float(torch.stack(terms).sum()) if terms else 0.0
