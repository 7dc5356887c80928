"""Sees what two networks answer to the same batches, and tells in the end what changed."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from penjing.data import Data
from penjing.explanation._answers import Answers, is_classes
from penjing.explanation._layers import LayerNoise
from penjing.explanation._records import Explanation
from penjing.explanation._resampling import Resampled
from penjing.tasks import Classification, answers_of, compared_of, first_tensor, judged_of, sample_count

SHOWN = 24  # changed samples that are shown


class Witness:
    """Is called with each batch, as `likeness(seen=…)` does, and makes an `Explanation` of all of them."""

    def __init__(self, data: Data, shown: int = SHOWN) -> None:
        """Takes the data that the batches come from, and how many changed samples to show."""
        self._data, self._shown = data, shown
        self._answers: Answers | None = None
        self._drawn: Resampled | None = None
        self._samples = 0

    def __call__(self, inputs: tuple[Tensor, ...], targets: Any, before: Any, after: Any) -> None:
        """Adds one batch: its inputs and targets, and the outputs of the original and of the small network."""
        whole = self._data.task
        task, before, own = judged_of(whole, before, targets)
        _, after, _ = judged_of(whole, after, None)
        outputs, others = (first_tensor(compared_of(task, made)) for made in (before, after))
        if not self._samples:
            if answers_of(task) != "values" and is_classes(outputs, own):
                self._answers = Answers(self._data, self._shown)
            if task.labelled and not (self._answers is not None and _is_accuracy(task)):
                self._drawn = Resampled(task)
        count = sample_count(inputs)
        self._samples += count
        if self._answers is not None:
            self._answers.update(inputs, own, outputs, others)
        if self._drawn is not None:
            self._drawn.update(count, own, before, after)

    def explanation(self, layers: Sequence[LayerNoise] = (), missing: Sequence[str] = ()) -> Explanation:
        """Returns what changed.

        Args:
            layers: the layers' noise, if it was measured.
            missing: sentences on what else can't be told.
        """
        facts: dict[str, Any] = {}
        why = list(missing)
        if self._answers is not None:
            facts |= self._answers.told()
            if self._answers.labelled and self._drawn is None:
                facts |= self._answers.accuracy()
        else:
            why.append(
                "Classes, changed samples and confidence are told where each sample is answered with one of several classes."
            )
        if self._answers is not None and not self._answers.labelled:
            why.append("Without labels nothing tells which of the changed answers are right.")
        if self._drawn is not None:
            found = self._drawn.estimates()
            # What chance does was tested of right answers, which this metric doesn't count.
            facts |= {"chance": None, **(found or {})}
            if found is None:
                why.append(f"The metric has no interval, since {self._drawn.why}.")
        return Explanation(
            self._data.task.metric_name,
            self._samples,
            **facts,
            layers=tuple(layers),
            missing=tuple(why),
            lower_is_better=bool(getattr(self._data.task, "lower_is_better", False)),
        )


def _is_accuracy(task: Any) -> bool:
    """Tells whether a task's metric is the share of right answers, and no other one in a class of the user's."""
    return isinstance(task, Classification) and type(task).metric is Classification.metric
