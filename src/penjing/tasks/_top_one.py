"""The metric of classification, apart because of what it takes to import."""

from typing import Any

from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from penjing.tasks._classification import checked, out_of_range


class TopOne(MulticlassAccuracy):
    """Micro-averaged accuracy that reads the first tensor of what the network returned."""

    def __init__(self, classes: int | None) -> None:
        # validate_args would ask for every value of every batch whether it is a known class: checked is cheaper.
        super().__init__(num_classes=classes, average="micro", validate_args=False)

    def update(self, outputs: Any, targets: Tensor) -> None:
        """Takes in the logits `(N, classes, ...)` and the class indices `(N, ...)` of one batch."""
        logits, indices = checked(outputs, targets)
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < logits.shape[1]:
            raise out_of_range(logits, indices)
        super().update(logits.argmax(1).flatten(), indices.flatten())
