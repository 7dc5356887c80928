"""The metric of segmentation, in a file of its own because torchmetrics takes long to import."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from penjing.tasks._likeness import answered
from penjing.tasks._positions import IGNORED

if TYPE_CHECKING:
    from penjing.tasks._segmentation import Segmentation


class MeanIoU(MulticlassJaccardIndex):
    """Mean IoU of the classes that occur, over the pixels that count."""

    additive = True  # its state is a sum over samples

    def __init__(self, task: "Segmentation") -> None:
        # validate_args would check every value of every batch; the check in `update` is cheaper.
        super().__init__(task.classes, average="macro", ignore_index=IGNORED, validate_args=False)
        self._task = task

    def update(self, outputs: Any, targets: Tensor) -> None:
        """Adds the logits `(N, classes, ...)` and the masks `(N, ...)` of one batch."""
        logits, masks = self._task.checked(outputs, targets)
        if bool((((masks < 0) | (masks >= self.num_classes)) & (masks != IGNORED)).any()):
            raise self._task.out_of_range(masks)
        # Logits that give no answer must not be right by chance: argmax takes the first of equal entries, or a NaN.
        wrong = (masks.clamp(min=0) + 1) % self.num_classes
        super().update(torch.where(answered(logits), logits.argmax(1), wrong).flatten(), masks.flatten())
