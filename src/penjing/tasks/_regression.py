"""Values per sample: a loss of the errors, and how much of the targets' variation is explained."""

from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.errors import PenjingError, unknown_name
from penjing.tasks._likeness import Answers
from penjing.tasks._outputs import first_tensor, with_targets
from penjing.tasks._registry import tasks
from penjing.tasks._task import Metric

Error = Literal["r2", "mae", "rmse"]
Loss = Literal["mse", "l1", "smooth_l1"]
NAMES = {"r2": "R²", "mae": "mean absolute error", "rmse": "root mean squared error"}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
}


@tasks.register(source="Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009", better="as named")
class Regression:
    """One or several values per sample, such as a position, an age or a temperature.

    Batches are `(input, target)` or `((input, input, ...), target)`. The network's first output and the targets have equal
    shapes `(N, ...)`; `(N, 1)` and `(N,)` are the same.

    Args:
        metric: "r2", the share of the targets' variation that is explained (1 is perfect, 0 is the mean of all targets); "mae",
            the mean absolute error; or "rmse", the root mean squared error. Errors are in the targets' units, and a budget's
            `drop` is by how much they may rise.
        loss: what is minimised: "mse", "l1" or "smooth_l1".

    Attributes:
        lower_is_better: whether the metric is an error. Its values are then negative in all computing and in `report.json`, so
            that higher is better everywhere, and people are shown them without the sign.

    Example:
        >>> import torch
        >>> metric = Regression("mae").metric()
        >>> metric.update(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 2.0]))
        >>> float(metric.compute())
        -0.5
    """

    labelled = True
    answers: Answers = "values"

    def __init__(self, metric: Error = "r2", loss: Loss = "mse") -> None:
        """Takes the names of the metric and of the loss.

        Raises:
            PenjingError: a name is unknown.
        """
        for what, name, known in (("metric of regression", metric, get_args(Error)), ("loss", loss, get_args(Loss))):
            if name not in known:
                raise unknown_name(what, str(name), known)
        self._metric: Error = metric
        self._loss: Loss = loss
        self.metric_name = NAMES[metric]
        self.lower_is_better = metric != "r2"

    def __repr__(self) -> str:
        return f"Regression(metric={self._metric!r}, loss={self._loss!r})"

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Returns the inputs and the targets of `(input, target)`; no targets for `(input,)`.

        Raises:
            PenjingError: the batch is neither.
        """
        return with_targets(batch, "Regression")

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Returns the mean loss of the outputs for targets of the same shape."""
        given, wanted = paired(outputs, targets)
        return LOSSES[self._loss](given.float(), wanted.float())

    def metric(self) -> Metric:
        """Returns a fresh metric, of torchmetrics; that of an error is negative."""
        from penjing.tasks._errors import METRICS  # torchmetrics takes longer to import than all of Penjing

        return METRICS[self._metric]()

    def constant(self, targets: Iterable[Tensor]) -> float:
        """Returns the metric of the best network that answers every sample alike.

        Args:
            targets: the targets of all batches, `(N, ...)` each.
        """
        if self._metric == "r2":
            return 0.0
        found = torch.cat([one.double().flatten(1) if one.ndim > 1 else one.double()[:, None] for one in targets])
        if self._metric == "mae":
            return -float((found - found.median(0).values).abs().mean())
        return -float((found - found.mean(0)).square().mean().sqrt())


def paired(outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a network's first output and the targets in the same shape, on the output's device.

    Raises:
        PenjingError: the shapes differ; an error without this check would be computed of all pairs of samples.
    """
    given = first_tensor(outputs)
    wanted = targets.to(given.device)
    if {given.ndim, wanted.ndim} == {1, 2} and 1 in (given.shape[-1], wanted.shape[-1]) and len(given) == len(wanted):
        given, wanted = given.reshape(len(given), -1), wanted.reshape(len(wanted), -1)
    if given.shape != wanted.shape:
        raise PenjingError(
            f"Regression needs outputs and targets of the same shape, but got {tuple(given.shape)} from the model and "
            f"{tuple(targets.shape)} from the loader."
        )
    return given, wanted
