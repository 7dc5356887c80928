"""Training of several widths at once: the widest learns from the labels and teaches the narrower ones, in each step.

Of more than four widths, each step takes the narrowest, the widest and two others, as in the paper's sandwich rule.

References:
    Yu and Huang 2019, Universally Slimmable Networks and Improved Training Techniques, ICCV, arXiv:1903.05134, sections
    3.3 (sandwich rule) and 3.4 (in-place distillation).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from penjing.adaptive.slimmable import Slimmable
from penjing.distillation import Comparison, Seen, counted_positions, signals, suited
from penjing.tasks import Metric, Task, answers_of, compared_of, run_on
from penjing.training.label_smoothing import smoothed

BETWEEN = 2  # widths that a step takes beside the narrowest and the widest: the paper's n = 4 in all


class Sandwich(nn.Module):
    """A slimmable network that gives the outputs of several widths in one call, those of the widest last."""

    takes_mapping = True

    def __init__(self, model: Slimmable) -> None:
        """Takes the network, whose weights are shared with it."""
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> tuple[Any, ...]:
        """Returns the outputs of each width of this step; in eval mode those of all widths."""
        last = len(self.model.widths) - 1
        chosen = list(range(last + 1))
        if self.training and last > BETWEEN + 1:
            between = 1 + torch.randperm(last - 1)[:BETWEEN]  # the training loop seeds this for each batch
            chosen = [0, *sorted(between.tolist()), last]
        found = []
        for place in chosen:
            before, self.model.width = self.model.width, place
            found.append(run_on(self.model, inputs))
            self.model.width = before
        return tuple(found)


class SandwichTask:
    """The task of a `Sandwich`: its loss sums up all widths; its metric is the widest width's."""

    def __init__(self, task: Task) -> None:
        """Takes the network's own task."""
        self._task = task

    def __getattr__(self, name: str) -> Any:
        if name == "_task":  # while it is copied, there is none yet
            raise AttributeError(name)
        return getattr(self._task, name)

    def __repr__(self) -> str:
        return repr(self._task)

    @property
    def label_smoothing(self) -> float:
        """That of the network's own task, which has to know it."""
        return float(self._task.label_smoothing)  # type: ignore[attr-defined]

    @label_smoothing.setter
    def label_smoothing(self, amount: float) -> None:
        self._task = smoothed(self._task, amount)

    def loss(self, outputs: tuple[Any, ...], targets: Any) -> Tensor:
        """Returns the widest width's loss, plus that by which each other width learns the widest's outputs.

        Args:
            outputs: of each width, the widest's last.
            targets: as the network's own task takes them.
        """
        *narrow, widest = outputs
        total = self._task.loss(widest, targets)
        taught = pytree.tree_map(_detached, compared_of(self._task, widest))
        kind = suited(answers_of(self._task), taught)
        signal = signals[kind].function(**({"temperature": 1.0} if kind == "soft_labels" else {}))
        for made in narrow:
            seen = Seen(compared_of(self._task, made))
            total = total + signal(Comparison(seen, Seen(taught), (), None, counted_positions(targets)))
        return total

    def metric(self) -> Metric:
        """Returns a fresh metric of the widest width."""
        return _OfWidest(self._task.metric())


class _OfWidest:
    """A metric of the last of several outputs."""

    def __init__(self, metric: Metric) -> None:
        self.inner = metric

    def update(self, outputs: tuple[Any, ...], targets: Any) -> None:
        self.inner.update(outputs[-1], targets)

    def compute(self) -> Tensor:
        return self.inner.compute()

    def reset(self) -> None:
        self.inner.reset()


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
