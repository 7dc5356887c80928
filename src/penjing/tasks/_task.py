"""The two protocols that a user's own task follows; nothing has to inherit from them."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class Metric(Protocol):
    """What `Task.metric()` returns; every `torchmetrics.Metric` is one."""

    def update(self, outputs: Any, targets: Tensor) -> None:
        """Takes in one batch."""

    def compute(self) -> Tensor:
        """Returns the value over all batches since the last reset; higher is better."""

    def reset(self) -> None:
        """Forgets all batches."""


@runtime_checkable
class Task(Protocol):
    """What a network is for. `Classification` and `Unlabelled` are given; others are written by the user.

    Attributes:
        labelled: whether batches carry targets; without them there is neither loss nor metric, and `agreement` with the
            original stands in for the metric.
        metric_name: what the metric is called in reports, "accuracy" for example.

    A task may also have `answers`, what two networks are compared by where there are no labels (see `Likeness`) and what a
    teacher's outputs are learnt as ("values" as they are, "classes" as probabilities), and `constant(targets)`, the metric
    that an answer which is the same for every sample would reach: an original that is no better has learned nothing, and a
    run on it doesn't count as a success.
    """

    labelled: bool
    metric_name: str

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Splits what a loader yields into the network's inputs and the targets (None without labels)."""

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Returns the scalar to minimise for what the network returned."""

    def metric(self) -> Metric:
        """Returns a fresh metric where higher is better."""
