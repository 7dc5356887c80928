"""Mean average precision of boxes, as COCO's evaluation computes it, without crowds.

torchmetrics has it too, by way of pycocotools and torchvision, which Penjing doesn't need otherwise.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from penjing.tasks._detection import Detection

MOST = 100  # boxes of a class in an image that count, the surest ones, as in COCO
RECALLS = 101  # points from 0 to 1 at which precision is read, as in COCO
COCO = tuple(0.5 + 0.05 * step for step in range(10))  # thresholds of IoU from 0.5 to 0.95


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Returns the intersection over union of boxes `(n, 4)` and `(m, 4)`, x1, y1, x2, y2 each: `(n, m)`."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


def matches(found: Tensor, wanted: Tensor, thresholds: Tensor) -> Tensor:
    """Returns which boxes are right, boolean `(thresholds, n)`: each wanted box goes to the surest box that overlaps it enough.

    Args:
        found: boxes `(n, 4)`, the surest first.
        wanted: boxes `(m, 4)`.
        thresholds: of IoU, `(thresholds,)`.
    """
    right = torch.zeros(len(thresholds), len(found), dtype=torch.bool)
    if not len(wanted):
        return right
    overlaps, free = iou(found, wanted), torch.ones(len(thresholds), len(wanted), dtype=torch.bool)
    rows = torch.arange(len(thresholds))
    for at, overlap in enumerate(overlaps):
        best, which = torch.where(free, overlap, -1.0).max(1)
        right[:, at] = best >= thresholds
        free[rows, which] &= ~right[:, at]
    return right


class MeanAveragePrecision:
    """The mean over classes, and over thresholds of IoU, of the area under precision over recall."""

    def __init__(self, task: "Detection", thresholds: Sequence[float] = COCO) -> None:
        """Takes the task, which decodes outputs, and the thresholds."""
        self._task = task
        self._thresholds = torch.tensor(thresholds, dtype=torch.float64).clamp(max=1 - 1e-10)
        self.reset()

    def reset(self) -> None:
        """Forgets all batches."""
        self._wanted: dict[int, int] = defaultdict(int)
        self._scores: dict[int, list[Tensor]] = defaultdict(list)
        self._right: dict[int, list[Tensor]] = defaultdict(list)

    def update(self, outputs: Any, targets: Sequence[Mapping[str, Tensor]]) -> None:
        """Adds the outputs of one batch, and the boxes of its images."""
        for found, wanted in zip(self._task.decoded(outputs, len(targets)), targets, strict=True):
            labels, truth = wanted["labels"].cpu(), wanted["boxes"].double().cpu()
            scores = found["scores"].detach().double().cpu()
            boxes, classes = found["boxes"].detach().double().cpu(), found["labels"].cpu()
            for number in labels.unique().tolist():
                self._wanted[number] += int((labels == number).sum())
            for number in classes.unique().tolist():
                own = torch.nonzero((classes == number) & ~scores.isnan()).flatten()
                order = own[scores[own].argsort(descending=True, stable=True)][:MOST]
                self._scores[number].append(scores[order])
                self._right[number].append(matches(boxes[order], truth[labels == number], self._thresholds))

    def compute(self) -> Tensor:
        """Returns the mean over the classes of which there is a box; NaN where there is none at all."""
        found = [self._precision(number, wanted) for number, wanted in sorted(self._wanted.items())]
        return torch.stack(found).mean() if found else torch.tensor(float("nan"))

    def _precision(self, number: int, wanted: int) -> Tensor:
        if number not in self._scores:
            return torch.tensor(0.0, dtype=torch.float64)
        order = torch.cat(self._scores[number]).argsort(descending=True, stable=True)
        right = torch.cat(self._right[number], 1)[:, order].double().cumsum(1)
        recall, precision = right / wanted, right / torch.arange(1, right.shape[1] + 1)
        # Precision at a recall is the best at this recall or a larger one.
        precision = precision.flip(1).cummax(1).values.flip(1) if right.shape[1] else precision
        points = torch.linspace(0, 1, RECALLS, dtype=torch.float64).expand(len(right), -1).contiguous()
        at = torch.searchsorted(recall.contiguous(), points)
        padded = torch.cat([precision, torch.zeros(len(right), 1, dtype=torch.float64)], 1)
        return padded.gather(1, at).mean()
