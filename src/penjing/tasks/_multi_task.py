"""Several heads of one network, each with a task of its own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from penjing.checks import check, mapping, number
from penjing.errors import PenjingError, unknown_name
from penjing.tasks._compared import compared_of
from penjing.tasks._inputs import by_name, inputs_of
from penjing.tasks._likeness import Answers, answers_of
from penjing.tasks._outputs import describe
from penjing.tasks._positions import counted_of
from penjing.tasks._registry import tasks
from penjing.tasks._task import Metric, Task
from penjing.tasks.doors import TASK


@tasks.register(source="Caruana, Multitask Learning, Machine Learning 28, 1997", better="as named")
class MultiTask:
    """Several heads, each with a task of its own: the loss is the weighted sum of theirs, the metric that of one of them.

    The network returns a dictionary with an output for each head, by name, or a tuple or list with one for each, in order.
    Batches are `(input, targets)` or `((input, ...), targets)`, where `targets` is likewise a dictionary or a tuple or list;
    or `(input, target, target, ...)` with the heads' targets in order.

    Args:
        heads: the task of each head, by the name of its output.
        headline: the name of the head whose metric is judged, and which a budget's `drop` bounds; by default the first one.
        weights: how much the loss of a head counts; 1 for those that aren't named.

    Attributes:
        heads: see above.
        headline: see above.
        weights: the weight of each head.

    Example:
        >>> from penjing.tasks import Classification, Regression
        >>> task = MultiTask({"digit": Classification(10), "angle": Regression("mae")}, weights={"angle": 0.1})
        >>> task.metric_name, task.with_headline("angle").metric_name
        ('accuracy of digit', 'mean absolute error of angle')
    """

    labelled = True

    def __init__(
        self, heads: Mapping[str, Task], headline: str | None = None, weights: Mapping[str, float] | None = None
    ) -> None:
        """Takes the heads.

        Raises:
            PenjingError: there is no head, a head has no labels, or a name isn't that of a head.
        """
        check({"heads": heads, "weights": weights or {}}, _RULES)
        self.heads = dict(heads)
        if not self.heads:
            raise PenjingError('MultiTask needs at least one head, such as {"digit": penjing.tasks.Classification()}.')
        for name, task in self.heads.items():
            if not task.labelled:
                raise PenjingError(
                    f"The head '{name}' has no labels, so there is neither loss nor metric: leave it out."
                )
        self.headline = next(iter(self.heads)) if headline is None else headline
        for name in (self.headline, *(weights or {})):
            if name not in self.heads:
                raise unknown_name("head", str(name), self.heads)
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in self.heads}
        judged = self.heads[self.headline]
        self.metric_name = f"{judged.metric_name} of {self.headline}"
        self.lower_is_better = bool(getattr(judged, "lower_is_better", False))
        kinds = {answers_of(task) for task in self.heads.values()}
        self.answers: Answers = "classes" if kinds == {"classes"} else "values"
        if hasattr(judged, "constant"):
            self.constant = self._constant

    def __repr__(self) -> str:
        heads = ", ".join(f"{name!r}: {task!r}" for name, task in self.heads.items())
        return f"MultiTask({{{heads}}}, headline={self.headline!r})"

    def with_headline(self, name: str) -> "MultiTask":
        """Returns the same task with another headline: `evaluate(graph, loader, task.with_headline("angle"))`.

        Raises:
            PenjingError: there is no such head.
        """
        return MultiTask(self.heads, name, self.weights)

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], dict[str, Any] | None]:
        """Returns the inputs, and each head's targets by its name as the head's task has them; none for `(input,)`.

        Raises:
            PenjingError: the batch is of another form.
        """
        if isinstance(batch, Tensor):
            return (batch,), None
        inputs = inputs_of(batch[0]) if isinstance(batch, tuple | list) and batch else None
        if inputs is None:
            raise PenjingError(f"MultiTask expects batches (input, targets), but the loader gave {describe(batch)}.")
        if len(batch) == 1:
            return inputs, None
        given = (
            batch[1] if len(batch) == 2 and (len(self.heads) == 1 or not isinstance(batch[1], Tensor)) else batch[1:]
        )
        own = {name: self._of(given, name, "targets", "the loader") for name in self.heads}
        whole = by_name(inputs) or inputs
        return inputs, {name: task.split((whole, own[name]))[1] for name, task in self.heads.items()}

    def head(self, outputs: Any, name: str) -> Any:
        """Returns the output of one head.

        Raises:
            PenjingError: the network has no such output.
        """
        return self._of(outputs, name, "outputs", "the model")

    def _of(self, values: Any, name: str, what: str, whence: str) -> Any:
        if isinstance(values, Mapping):
            if name in values:
                return values[name]
        elif isinstance(values, tuple | list):
            if len(values) == len(self.heads):
                return values[list(self.heads).index(name)]
        elif len(self.heads) == 1:
            return values
        raise PenjingError(
            f"MultiTask needs {what} for the heads {', '.join(self.heads)} from {whence}, in a dictionary by these names or "
            f"as many in a tuple, but got {describe(values)}. Name the heads as {whence} does."
        )

    def loss(self, outputs: Any, targets: Mapping[str, Any]) -> Tensor:
        """Returns the sum of the heads' losses, each times its weight."""
        losses = [self.weights[name] * self._loss(name, outputs, targets) for name in self.heads]
        return torch.stack(losses).sum()

    def _loss(self, name: str, outputs: Any, targets: Mapping[str, Any]) -> Tensor:
        try:
            return self.heads[name].loss(self.head(outputs, name), targets[name])
        except PenjingError as error:
            raise _named(name, error) from error

    def metric(self) -> "HeadMetric":
        """Returns a fresh metric of the headline's."""
        return HeadMetric(self)

    def _constant(self, targets: Iterable[Mapping[str, Any]]) -> float:
        """Returns the headline's metric of the best network that answers every sample alike."""
        judged: Any = self.heads[self.headline]
        return float(judged.constant([one[self.headline] for one in targets]))

    def counted(self, inputs: Sequence[Tensor]) -> Tensor | None:
        """Returns which positions of the inputs count, by the first head that tells; None where none does."""
        told = (counted_of(task, inputs) for task in self.heads.values())
        return next((one for one in told if one is not None), None)

    def compared(self, outputs: Any) -> dict[str, Any]:
        """Returns each head's output by name, as the head's task compares it."""
        return {name: compared_of(task, self.head(outputs, name)) for name, task in self.heads.items()}


class HeadMetric:
    """The metric of one head of `MultiTask`.

    Attributes:
        inner: the metric of the head's own task.
    """

    def __init__(self, task: MultiTask) -> None:
        """Takes the task, whose headline says which head."""
        self._task = task
        self.inner: Metric = task.heads[task.headline].metric()

    def update(self, outputs: Any, targets: Mapping[str, Any]) -> None:
        """Adds the outputs and targets of one batch."""
        name = self._task.headline
        try:
            self.inner.update(self._task.head(outputs, name), targets[name])
        except PenjingError as error:
            raise _named(name, error) from error

    def compute(self) -> Tensor:
        """Returns the value over all batches."""
        return self.inner.compute()

    def reset(self) -> None:
        """Forgets all batches."""
        self.inner.reset()


def _named(name: str, error: PenjingError) -> PenjingError:
    text = str(error)
    return error if text.startswith("MultiTask") else PenjingError(f"The head '{name}': {text}")


_RULES = {
    "heads": mapping(TASK, "a mapping from the names of heads to their tasks"),
    "weights": mapping(number(0), "a mapping from names of heads to weights, numbers of 0 or more"),
}
