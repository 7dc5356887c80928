"""The values that a signal is given of one batch: outputs and inner values of student and teacher."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from penjing.tasks import IGNORED

NOTHING = 1e-12  # a sum of weights below this is that of no position at all


@dataclass(frozen=True)
class Seen:
    """The values that one network computed of a batch.

    Attributes:
        outputs: the network's outputs, tensors in any nesting.
        taps: the inner values that the signal asked for, in the order of the pairs: vectors `(N, channels)`, sequences
            `(N, positions, channels)`, or maps `(N, channels, positions...)` with two or three axes of positions.
        parameters: the network's parameters by name; empty where the signal doesn't want them.
    """

    outputs: Any
    taps: Sequence[Tensor] = ()
    parameters: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One batch, seen by both networks.

    Attributes:
        student: the student's values, with gradients.
        teacher: the teacher's values, without gradients of its parameters. Where the signal wants gradients of the inputs, the
            teacher's outputs depend on `inputs` as the student's do.
        inputs: the inputs of both; they require gradients where the signal wants these.
        targets: the labels of the batch; None without labels.
        counted: which positions count, boolean of shape (N,) or (N, positions...); None where all do.
        progress: the share of the training that is done.
        teacher_gradients: computes the gradients of the task's loss of this batch with respect to the teacher's parameters,
            by name, as `parameter_gradients` does; None where the signal doesn't want parameters, or without labels.
    """

    student: Seen
    teacher: Seen
    inputs: tuple[Any, ...] = ()
    targets: Any = None
    counted: Tensor | None = None
    progress: float = 0.0
    teacher_gradients: Callable[[], Mapping[str, Tensor]] | None = None


def counted_positions(targets: Any, inputs: Tensor | None = None) -> Tensor | None:
    """Returns which positions count: not those whose class index is −100, nor padded ones. None where all count.

    Targets of another kind, such as the boxes of a detector in a dictionary, have no such positions.

    Args:
        targets: of a batch.
        inputs: which positions of the inputs count, as the task tells it, boolean `(N, positions...)`; None where all do.
    """
    indices = isinstance(targets, Tensor) and not targets.is_floating_point() and targets.dtype != torch.bool
    counted: Tensor | None = targets != IGNORED if indices else None
    if inputs is not None:
        counted = inputs if counted is None else _both(counted, inputs)
    return None if counted is None or bool(counted.all()) else counted


def _both(labels: Tensor, inputs: Tensor) -> Tensor:
    """Returns which positions count by both; labels whose positions aren't those of the inputs decide alone."""
    if labels.ndim == 1:
        return inputs & labels.reshape(-1, *(1 for _ in inputs.shape[1:]))
    return labels & inputs if labels.shape == inputs.shape else labels


def mean_over(values: Tensor, weights: Tensor | None) -> Tensor:
    """Returns the mean of values (N, positions...), each with its weight; 0 where nothing has any.

    Args:
        values: one number for each position.
        weights: how much each position counts, of the same shape: boolean, or numbers ≥ 0. None where all count alike.

    Raises:
        ValueError: `weights` has another shape.
    """
    if weights is None:
        return values.mean()
    if weights.shape != values.shape:
        raise ValueError(
            f"the weights of positions have the shape {tuple(weights.shape)}, values {tuple(values.shape)}"
        )
    kept = weights.to(values.dtype)
    return (values.masked_fill(kept == 0, 0) * kept).sum() / kept.sum().clamp(min=NOTHING)
