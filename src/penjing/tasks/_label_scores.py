"""The metrics of several labels, in a file of their own because torchmetrics takes long to import."""

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.tasks._multi_label import MultiLabel


def _probabilities(task: "MultiLabel", outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns probabilities in float64, in which large logits stay apart, and labels of 0 and 1; both `(N, labels)`."""
    logits, given = task.checked(outputs, targets)
    labels = given.long()
    if bool((labels != given).any()):
        raise PenjingError("The metric of MultiLabel needs targets that are 0 or 1, but some lie between the two.")
    # A NaN answers nothing and must not be right by chance.
    return torch.where(logits.isnan(), 1.0 - labels.double(), logits.double().sigmoid()), labels


class AveragePrecision(MultilabelAveragePrecision):
    """Average precision, the mean over the labels that any sample has."""

    def __init__(self, task: "MultiLabel") -> None:
        super().__init__(task.labels, average="none", validate_args=False)
        self._task = task
        self.add_state("found", torch.zeros(task.labels, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Any, targets: Tensor) -> None:
        """Adds the logits and the labels of one batch."""
        probabilities, labels = _probabilities(self._task, outputs, targets)
        self.found += labels.sum(0)  # type: ignore[has-type]
        super().update(probabilities, labels)

    def compute(self) -> Tensor:
        """Returns the mean."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No positive samples")  # these labels are left out of the mean
            return super().compute()[self.found > 0].mean()


class MacroF1(MultilabelF1Score):
    """F1 of yes and no, the mean over all labels."""

    additive = True  # its state is a sum over samples

    def __init__(self, task: "MultiLabel") -> None:
        super().__init__(task.labels, threshold=task.threshold, average="macro", validate_args=False)
        self._task = task

    def update(self, outputs: Any, targets: Tensor) -> None:
        """Adds the logits and the labels of one batch."""
        super().update(*_probabilities(self._task, outputs, targets))


METRICS: dict[str, type[Metric]] = {"average_precision": AveragePrecision, "f1": MacroF1}
