"""The two protocols that a user's own task follows; nothing has to inherit from them."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class Metric(Protocol):
    """A metric, as `Task.metric()` returns it; every `torchmetrics.Metric` is one."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Adds the outputs and targets of one batch."""

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

    A task may also have an attribute `answers`, the kind of the network's outputs: "values", "classes" or "auto". It decides
    how two networks are compared where there are no labels (see `Likeness`), and how a teacher's outputs are learned ("values"
    as they are, "classes" as probabilities).

    A task may also have a method `constant(targets)`, which returns the metric that a network would reach which answers every
    sample alike. An original that is no better has learned nothing, and a run on it doesn't count as a success.

    A task may also have an attribute `lower_is_better`: its metric is then the negative of an error that `metric_name` names,
    so that higher is better all the same, and people are shown the error itself (see `shown_metric`).

    A task may also have a method `counted(inputs)`, which tells of the inputs of one batch which positions count, boolean
    `(N, positions...)`, or None where all do. Padded positions then count for nothing where a teacher's inner values are
    compared with a student's.

    A task may also have a method `compared(outputs)`, which returns the outputs as they are compared with another network's,
    with classes along axis 1, where the network returns them otherwise: those of tokens `(N, positions, classes)`, for example.
    """

    labelled: bool
    metric_name: str

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], Any]:
        """Splits a batch of a loader into the network's inputs and the targets (None without labels).

        Targets are a tensor with a row for each sample, a list with an item for each sample (the boxes of an image), or a tuple
        or dictionary of these.
        """

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the scalar to minimise for the network's outputs and the targets of one batch."""

    def metric(self) -> Metric:
        """Returns a fresh metric where higher is better."""


def shown_metric(task: Any, value: float) -> float:
    """Returns a metric's value as people are shown it: an error without the sign by which higher is better."""
    return -value if getattr(task, "lower_is_better", False) else value


def metric_words(task: Any, value: float) -> str:
    """Returns a metric's name and value: "accuracy 0.9444"."""
    return f"{task.metric_name} {shown_metric(task, value):.4f}"
