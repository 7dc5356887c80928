"""One class per pixel, judged by the mean intersection over union of the classes."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.checks import check, number, optional, whole
from penjing.errors import PenjingError
from penjing.tasks._likeness import Answers
from penjing.tasks._outputs import first_tensor, with_targets
from penjing.tasks._positions import IGNORED
from penjing.tasks._registry import tasks
from penjing.tasks._task import Metric


@tasks.register(source="Everingham et al., The PASCAL Visual Object Classes Challenge, 2015 (mean IoU)")
class Segmentation:
    """One class per pixel or voxel: cross-entropy and mean IoU.

    Batches are `(image, mask)` or `((input, ...), mask)`. The network's first output holds logits `(N, classes, ...)`, a mask
    class indices `(N, ...)` of the same size. IoU of a class: pixels that the network and the mask both call so, over those that
    one of the two does, counted over all images. The mean is over the classes that occur in either.

    Args:
        classes: number of classes, at least 2, the background among them.
        ignore_index: the number in a mask of pixels that count for nothing, such as 255: neither in the loss, nor in the
            metric, nor where a teacher is learned from. −100 always means that, as PyTorch has it.
        label_smoothing: as that of `Classification`.

    Example:
        >>> import torch
        >>> metric = Segmentation(classes=2).metric()
        >>> metric.update(torch.tensor([[[[2.0, 2.0]], [[0.0, 3.0]]]]), torch.tensor([[[0, 0]]]))
        >>> float(metric.compute())
        0.25
    """

    labelled = True
    metric_name = "mean IoU"
    answers: Answers = "classes"

    def __init__(self, classes: int, ignore_index: int | None = None, label_smoothing: float = 0.0) -> None:
        given = {"classes": classes, "ignore_index": ignore_index, "label_smoothing": label_smoothing}
        check(given, _RULES)
        self.classes = classes
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def __repr__(self) -> str:
        return f"Segmentation(classes={self.classes}, ignore_index={self.ignore_index})"

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Returns the inputs and the masks of `(input, mask)`, ignored pixels as −100; no masks for `(input,)`.

        Raises:
            PenjingError: the batch is neither.
        """
        inputs, masks = with_targets(batch, "Segmentation")
        if masks is None or self.ignore_index is None or masks.is_floating_point():
            return inputs, masks
        return inputs, masks.long().masked_fill(masks == self.ignore_index, IGNORED)

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy over the pixels that count; 0 where none does."""
        logits, masks = self.checked(outputs, targets)
        try:
            total = F.cross_entropy(
                logits.float(), masks, ignore_index=IGNORED, label_smoothing=self.label_smoothing, reduction="sum"
            )
        except IndexError as error:
            raise self.out_of_range(masks) from error
        return total / (masks != IGNORED).sum().clamp(min=1)

    def metric(self) -> Metric:
        """Returns a fresh mean IoU, a torchmetrics metric."""
        from penjing.tasks._mean_iou import MeanIoU  # torchmetrics takes longer to import than all of Penjing

        return MeanIoU(self)

    def constant(self, targets: Iterable[Tensor]) -> float:
        """Returns the best mean IoU of a network that gives every pixel the same class.

        Args:
            targets: masks of all batches, `(N, ...)` each.
        """
        counts = torch.zeros(self.classes, dtype=torch.long)
        for masks in targets:
            kept = masks[masks != IGNORED]
            if kept.numel() and not 0 <= int(kept.min()) <= int(kept.max()) < self.classes:
                raise self.out_of_range(masks)
            counts += kept.flatten().long().bincount(minlength=self.classes).cpu()
        present = int((counts > 0).sum())
        return float(counts.max() / counts.sum() / present) if present else 0.0

    def checked(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits and masks (int64, on the logits' device) after checking that their shapes fit.

        Raises:
            PenjingError: they don't.
        """
        logits = first_tensor(outputs)
        if logits.ndim < 3 or logits.shape[1] != self.classes:
            raise PenjingError(
                f"Segmentation(classes={self.classes}) needs logits (N, {self.classes}, height, width) from the model, but got "
                f"{tuple(logits.shape)}. Give the number of classes that the model has, the background among them."
            )
        if targets.is_floating_point() or targets.dtype == torch.bool:
            raise PenjingError(
                f"Segmentation needs masks of integer class indices, but the loader gave {targets.dtype}: convert them, "
                "mask.long(), where they hold classes and no shares of 255."
            )
        if (logits.shape[0], *logits.shape[2:]) != tuple(targets.shape):
            wanted, got = (logits.shape[0], *logits.shape[2:]), tuple(targets.shape)
            advice = (
                "take the axis of channels out of the masks, mask.squeeze(1)"
                if got == (wanted[0], 1, *wanted[1:])
                else "resize the outputs within the model (F.interpolate) or the masks in the loader (mode nearest)"
            )
            raise PenjingError(
                f"Segmentation needs masks of the outputs' size: for outputs {tuple(logits.shape)} from the model masks "
                f"{wanted}, but the loader gave {got}: {advice}."
            )
        return logits, targets.to(logits.device).long()

    def out_of_range(self, masks: Tensor) -> PenjingError:
        """Returns the error for masks with numbers that are no classes."""
        wrong = ((masks < 0) | (masks >= self.classes)) & (masks != IGNORED)
        at = wrong.nonzero()[0].tolist()
        found = int(masks[tuple(at)])
        return PenjingError(
            f"Segmentation(classes={self.classes}) needs class indices from 0 to {self.classes - 1}, but sample {at[0]} of a "
            f"batch has {found} at {tuple(at[1:])}. If {found} marks pixels that count for nothing, give ignore_index={found}; "
            "else give the right number of classes."
        )


_RULES = {
    "classes": whole(2, 2**20),
    "ignore_index": optional(whole(-(2**31), 2**31)),
    "label_smoothing": number(0, below=1),
}
