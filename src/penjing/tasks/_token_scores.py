"""The metrics of tokens, in a file of their own because torchmetrics takes long to import."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from penjing.tasks._likeness import answered
from penjing.tasks._positions import IGNORED

if TYPE_CHECKING:
    from penjing.tasks._token_classification import TokenClassification


class _Counts(Metric):
    """Counts of tokens: those that count, the right ones, those answered with a class inside, and those that have one."""

    additive = True  # its state is a sum over samples
    seen: Tensor
    right: Tensor
    right_inside: Tensor
    inside: Tensor

    def __init__(self, task: "TokenClassification") -> None:
        super().__init__()
        self._task = task
        for name in ("seen", "right", "right_inside", "inside"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, outputs: Any, targets: Tensor) -> None:
        """Adds the logits `(N, positions, classes)` and the class indices `(N, positions)` of one batch."""
        logits, indices = self._task.checked(outputs, targets)
        counted, outside = indices != IGNORED, self._task.outside
        if bool((((indices < 0) | (indices >= self._task.classes)) & counted).any()):
            raise self._task.out_of_range(indices)
        # Logits that give no answer are never right: argmax takes the first of equal entries, or a NaN.
        answers = torch.where(answered(logits), logits.argmax(1), -1)
        right = (answers == indices) & counted
        self.seen += counted.sum()
        self.right += right.sum()
        self.right_inside += (right & (indices != outside)).sum()
        self.inside += ((answers != outside) & counted).sum() + ((indices != outside) & counted).sum()


class TokenAccuracy(_Counts):
    """The share of right tokens."""

    def compute(self) -> Tensor:
        """Returns the share."""
        return self.right / self.seen


class TokenF1(_Counts):
    """F1 of tokens whose class lies inside of something."""

    def compute(self) -> Tensor:
        """Returns F1; 0 where nothing was inside and nothing answered so."""
        return 2 * self.right_inside / self.inside.clamp(min=1)


METRICS: dict[str, type[Metric]] = {"accuracy": TokenAccuracy, "f1": TokenF1}
