"""The metric of any task with an interval: computed again on samples drawn with repetition (Efron's bootstrap, 1979)."""

import time
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.explanation._statistics import LEVEL, Estimate
from penjing.tasks import Task, has_rows, is_additive, joined, rows_of

DRAWS = 400  # of which the outer 2.5 % on each side are ten
MOST = 2**22  # values of all outputs, or of all samples' sums, that are kept
LONGEST = 20.0  # seconds that all draws may take
LEAST = 8  # samples below which drawing tells nothing
TOO_MANY = "the outputs hold more values than are kept"

Both = tuple[Any, Any]  # the original's, and the small network's


class _Kept(Protocol):
    """What is kept of all batches, of which the metric of any samples can be computed."""

    values: int

    def add(self, samples: int, targets: Any, both: Both) -> str:
        """Adds the outputs of both networks for a batch; returns why it can't, "" where it could."""

    def metrics(self, rows: Tensor) -> list[float]:
        """Returns both networks' metrics on these samples."""

    def clear(self) -> None:
        """Forgets all batches."""


class Resampled:
    """Keeps what both networks' metrics are computed of, where it is small.

    Attributes:
        why: why no interval can be given; "" where it can.
    """

    def __init__(self, task: Task) -> None:
        self._kept: _Kept = _Sums(task) if is_additive(task) else _Outputs(task)
        self._samples = 0
        self.why = ""

    def update(self, samples: int, targets: Any, before: Any, after: Any) -> None:
        """Adds one batch of so many samples."""
        if self.why:
            return
        leaves = [leaf for leaf in pytree.tree_leaves((before, after)) if isinstance(leaf, Tensor)]
        if targets is None:
            self.why = "there are no targets"
        elif (
            not leaves
            or any(leaf.ndim == 0 or len(leaf) != samples for leaf in leaves)
            or not has_rows(targets, samples)
        ):
            self.why = "outputs and targets don't have one row for each sample"
        else:
            self._samples += samples
            self.why = self._kept.add(samples, _on_cpu(targets), (_on_cpu(before), _on_cpu(after)))
            self.why = self.why or (TOO_MANY if self._kept.values > MOST else "")
        if self.why:
            self._kept.clear()

    def estimates(self) -> dict[str, Estimate] | None:
        """Returns both metrics and their change; None where `why` tells the reason."""
        samples = self._samples
        if not self.why and samples < LEAST:
            self.why = f"there are only {samples} samples"
        if self.why:
            return None
        generator = torch.Generator().manual_seed(0)
        drawn = []
        try:
            values = self._kept.metrics(torch.arange(samples))
            began = time.monotonic()  # not before: a metric's first computation may import and prepare much
            for _ in range(DRAWS):
                drawn.append(self._kept.metrics(torch.randint(samples, (samples,), generator=generator)))
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


class _Outputs:
    """The outputs and the targets themselves, for any metric."""

    def __init__(self, task: Task) -> None:
        self.values, self._task = 0, task
        self._batches: list[tuple[Any, Any, Any]] = []
        self._shapes: list[torch.Size] = []  # of a sample's outputs

    def add(self, samples: int, targets: Any, both: Both) -> str:
        leaves = [leaf for leaf in pytree.tree_leaves(both) if isinstance(leaf, Tensor)]
        shapes = [leaf.shape[1:] for leaf in leaves]
        if self._batches and self._shapes != shapes:
            return "outputs have other shapes in one batch than in another"
        self._shapes = shapes
        self.values += sum(leaf.numel() for leaf in leaves)
        self._batches.append((*both, targets))
        return ""

    def metrics(self, rows: Tensor) -> list[float]:
        if len(self._batches) > 1:
            before, after = (_joined([batch[part] for batch in self._batches]) for part in range(2))
            self._batches = [(before, after, joined([batch[2] for batch in self._batches]))]
        *both, targets = self._batches[0]
        found = []
        for outputs in both:
            metric = self._task.metric()
            metric.update(_rows(outputs, rows), rows_of(targets, rows))
            found.append(float(metric.compute()))
        return found

    def clear(self) -> None:
        self._batches.clear()


class _Sums:
    """For each sample, the sums of which an additive metric is computed: far fewer values than the outputs have."""

    def __init__(self, task: Task) -> None:
        self.values = 0
        self._first: tuple[Any, Any] | None = None  # outputs and targets of one sample
        self._metric: Any = task.metric()
        self._states: tuple[list[dict[str, Tensor]], ...] = ([], [])
        self._stacks: list[dict[str, Tensor]] = []

    def add(self, samples: int, targets: Any, both: Both) -> str:
        for row in range(samples):
            alone = torch.tensor([row])
            for outputs, states in zip(both, self._states, strict=True):
                self._first = self._first or (_rows(outputs, alone), rows_of(targets, alone))
                self._metric.reset()
                self._metric.update(_rows(outputs, alone), rows_of(targets, alone))
                states.append({name: state.clone() for name, state in self._metric.metric_state.items()})
                self.values += sum(state.numel() for state in states[-1].values())
        return ""

    def metrics(self, rows: Tensor) -> list[float]:
        assert self._first is not None
        self._stacks = self._stacks or [
            {name: torch.stack([state[name] for state in states]) for name in states[0]} for states in self._states
        ]
        found = []
        for stacks in self._stacks:
            self._metric.reset()
            self._metric.update(*self._first)  # torchmetrics warns where nothing was added before computing
            for name, stack in stacks.items():
                setattr(self._metric, name, stack[rows].sum(0))
            found.append(float(self._metric.compute()))
        return found

    def clear(self) -> None:
        self._states = ([], [])


def _estimate(values: np.ndarray) -> Estimate:
    """Returns the first value, which is that of all samples, with the interval of the others."""
    value, outside = float(values[0]), 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values[1:], [outside, 100 - outside])
    return Estimate(value, min(value, float(low)), max(value, float(high)))


def _on_cpu(values: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf, values)


def _rows(outputs: Any, rows: Tensor) -> Any:
    return pytree.tree_map(lambda leaf: leaf[rows] if isinstance(leaf, Tensor) else leaf, outputs)


def _joined(parts: list[Any]) -> Any:
    leaves = [pytree.tree_leaves(part) for part in parts]
    whole = [torch.cat(some) if isinstance(some[0], Tensor) else some[0] for some in zip(*leaves, strict=True)]
    return pytree.tree_unflatten(whole, pytree.tree_structure(parts[0]))
