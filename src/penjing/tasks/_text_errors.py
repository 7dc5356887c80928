"""The metrics of texts, in a file of their own because torchmetrics takes long to import."""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.text import CharErrorRate, WordErrorRate

if TYPE_CHECKING:
    from penjing.tasks._ctc import CTC, Targets


class _Errors(Metric):
    """Minus the error rate of the torchmetrics class that follows it among a metric's bases."""

    additive = True  # its state is a sum over samples

    def __init__(self, task: "CTC") -> None:
        super().__init__()
        self._task = task

    def update(self, outputs: Any, targets: "Targets") -> None:
        """Adds one batch."""
        super().update(*self._task.texts(outputs, targets))

    def compute(self) -> Tensor:
        """Returns the negative error: higher is better."""
        return -super().compute()


class WordErrors(_Errors, WordErrorRate):
    """Minus the word error rate."""


class CharacterErrors(_Errors, CharErrorRate):
    """Minus the character error rate."""


METRICS: dict[str, type[Metric]] = {"wer": WordErrors, "cer": CharacterErrors}
