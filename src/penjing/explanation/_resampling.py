"""The metric of any task with an interval: computed again on samples drawn with repetition (Efron's bootstrap, 1979)."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.explanation._statistics import LEVEL, Estimate
from penjing.tasks import Task

DRAWS = 400  # of which the outer 2.5 % on each side are ten
MOST = 2**22  # values of all outputs that are kept
LONGEST = 20.0  # seconds that all draws may take
LEAST = 8  # samples below which drawing tells nothing
TOO_MANY = "the outputs hold more values than are kept"


class Resampled:
    """Keeps both networks' outputs and the targets of all batches, where they are small.

    Attributes:
        why: why no interval can be given; "" where it can.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._batches: list[tuple[Any, Any, Tensor]] = []
        self._values = 0
        self._shapes: list[torch.Size] = []  # of a sample's outputs and targets
        self.why = ""

    def update(self, targets: Tensor | None, before: Any, after: Any) -> None:
        """Adds one batch."""
        if self.why:
            return
        leaves = [leaf for leaf in pytree.tree_leaves((before, after)) if isinstance(leaf, Tensor)]
        if targets is None or not isinstance(targets, Tensor):
            self.why = "there are no targets"
        elif not leaves or any(leaf.ndim == 0 or len(leaf) != len(targets) for leaf in (*leaves, targets)):
            self.why = "outputs and targets don't have one row for each sample"
        elif self._batches and self._shapes != [leaf.shape[1:] for leaf in (*leaves, targets)]:
            self.why = "outputs or targets have other shapes in one batch than in another"
        else:
            self._shapes = [leaf.shape[1:] for leaf in (*leaves, targets)]
            self._values += sum(leaf.numel() for leaf in leaves)
            self._batches.append((*(_kept(one) for one in (before, after)), targets.cpu()))
            self.why = TOO_MANY if self._values > MOST else ""
        if self.why:
            self._batches.clear()

    def estimates(self) -> dict[str, Estimate] | None:
        """Returns both metrics and their change; None where `why` tells the reason."""
        samples = sum(len(targets) for _, _, targets in self._batches)
        if not self.why and samples < LEAST:
            self.why = f"there are only {samples} samples"
        if self.why:
            return None
        before, after, targets = (_joined([batch[part] for batch in self._batches]) for part in range(3))
        generator = torch.Generator().manual_seed(0)
        whole, drawn = torch.arange(samples), []
        try:
            values = [_metric(self._task, one, targets, whole) for one in (before, after)]
            began = time.monotonic()  # not before: a metric's first computation may import and prepare much
            for _ in range(DRAWS):
                row = torch.randint(samples, (samples,), generator=generator)
                drawn.append([_metric(self._task, one, targets, row) for one in (before, after)])
                if time.monotonic() - began > LONGEST:
                    self.why = f"computing the metric {DRAWS} times would take more than {LONGEST:.0f} s"
                    return None
        except Exception as error:  # a metric of the user's may need batches of one size, or each sample once
            self.why = f"the metric raised {type(error).__name__} on joined or drawn samples ({error})"
            return None
        found = np.asarray([values, *drawn])
        if not np.isfinite(found).all():
            self.why = "the metric can't be computed on all draws of the samples"
            return None
        columns = {"before": found[:, 0], "after": found[:, 1], "change": found[:, 1] - found[:, 0]}
        return {name: _estimate(one) for name, one in columns.items()}


def _metric(task: Task, outputs: Any, targets: Tensor, rows: Tensor) -> float:
    metric = task.metric()
    metric.update(
        pytree.tree_map(lambda leaf: leaf[rows] if isinstance(leaf, Tensor) else leaf, outputs), targets[rows]
    )
    return float(metric.compute())


def _estimate(values: np.ndarray) -> Estimate:
    """Returns the first value, which is that of all samples, with the interval of the others."""
    value, outside = float(values[0]), 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values[1:], [outside, 100 - outside])
    return Estimate(value, min(value, float(low)), max(value, float(high)))


def _kept(outputs: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf, outputs)


def _joined(parts: list[Any]) -> Any:
    leaves = [pytree.tree_leaves(part) for part in parts]
    whole = [torch.cat(some) if isinstance(some[0], Tensor) else some[0] for some in zip(*leaves, strict=True)]
    return pytree.tree_unflatten(whole, pytree.tree_structure(parts[0]))
