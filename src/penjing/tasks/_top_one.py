"""The metric of classification, in a file of its own because torchmetrics takes long to import."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from penjing.tasks._classification import checked, out_of_range
from penjing.tasks._likeness import answered


class TopOne(MulticlassAccuracy):
    """Micro-averaged accuracy that reads the first tensor of the network's outputs."""

    def __init__(self, classes: int | None) -> None:
        # validate_args would check every value of every batch; the check in `update` is cheaper.
        super().__init__(num_classes=classes, average="micro", validate_args=False)
        self.classes = classes

    def update(self, outputs: Any, targets: Tensor) -> None:
        """Adds the logits `(N, classes, ...)` and the class indices `(N, ...)` of one batch."""
        logits, indices = checked(outputs, targets, self.classes)
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < logits.shape[1]:
            raise out_of_range(logits, indices)
        # Logits that give no answer must not be right by chance: argmax takes the first of equal entries, or a NaN.
        answers = torch.where(answered(logits), logits.argmax(1), (indices + 1) % logits.shape[1])
        super().update(answers.flatten(), indices.flatten())
