"""The metrics of regression, in a file of their own because torchmetrics takes long to import."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, R2Score

from penjing.tasks._regression import paired


def _rows(outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns outputs and targets as `(N, values)` in float64, in which sums of many samples stay exact."""
    given, wanted = paired(outputs, targets)
    return given.double().reshape(len(given), -1), wanted.double().reshape(len(wanted), -1)


class Explained(R2Score):
    """The share of the targets' variation that is explained, the mean over the values of a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.set_dtype(torch.float64)

    def update(self, outputs: Any, targets: Tensor) -> None:
        """Adds one batch."""
        given, wanted = _rows(outputs, targets)
        super().update(*(one[:, 0] if one.shape[1] == 1 else one for one in (given, wanted)))


class AbsoluteError(MeanAbsoluteError):
    """Minus the mean absolute error."""

    def __init__(self) -> None:
        super().__init__()
        self.set_dtype(torch.float64)

    def update(self, outputs: Any, targets: Tensor) -> None:
        """Adds one batch."""
        super().update(*(one.contiguous() for one in _rows(outputs, targets)))

    def compute(self) -> Tensor:
        """Returns the negative error: higher is better."""
        return -super().compute()


class RootSquaredError(MeanSquaredError):
    """Minus the root of the mean squared error over all values."""

    def __init__(self) -> None:
        super().__init__(squared=False)
        self.set_dtype(torch.float64)

    def update(self, outputs: Any, targets: Tensor) -> None:
        """Adds one batch."""
        super().update(*(one.flatten() for one in _rows(outputs, targets)))

    def compute(self) -> Tensor:
        """Returns the negative error: higher is better."""
        return -super().compute()


METRICS: dict[str, type[Metric]] = {"r2": Explained, "mae": AbsoluteError, "rmse": RootSquaredError}
