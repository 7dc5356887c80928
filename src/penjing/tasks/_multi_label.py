"""Several labels per sample, each of them yes or no."""

from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.checks import check, number, whole
from penjing.errors import PenjingError, unknown_name
from penjing.tasks._likeness import Answers
from penjing.tasks._outputs import first_tensor, with_targets
from penjing.tasks._registry import tasks
from penjing.tasks._task import Metric

Score = Literal["average_precision", "f1"]
NAMES = {"average_precision": "mean average precision", "f1": "macro F1"}


@tasks.register(source="Zhang and Zhou, A Review on Multi-Label Learning Algorithms, 2014")
class MultiLabel:
    """Several labels per sample, each yes or no, such as the tags of a photo: binary cross-entropy and average precision.

    Batches are `(input, target)` or `((input, ...), target)`. The network's first output holds a logit for each label,
    `(N, labels)`, of which the sigmoid is the label's probability. Targets of the same shape hold 0 and 1.

    Args:
        labels: number of labels.
        metric: "average_precision", the area under a label's curve of precision over recall, the mean over the labels that any
            sample has; or "f1", the mean over all labels of F1 = 2 · precision · recall / (precision + recall).
        threshold: the probability above which an answer is yes, for "f1".

    Example:
        >>> import torch
        >>> metric = MultiLabel(2).metric()
        >>> metric.update(torch.tensor([[3.0, -1.0], [1.0, 2.0]]), torch.tensor([[1, 0], [0, 1]]))
        >>> float(metric.compute())
        1.0
    """

    labelled = True
    answers: Answers = "values"

    def __init__(self, labels: int, metric: Score = "average_precision", threshold: float = 0.5) -> None:
        """Takes the number of labels and the name of the metric.

        Raises:
            PenjingError: the metric's name is unknown, or a number isn't allowed.
        """
        check({"labels": labels, "threshold": threshold}, _RULES)
        if metric not in get_args(Score):
            raise unknown_name("metric of several labels", str(metric), get_args(Score))
        self.labels = labels
        self.threshold = threshold
        self._metric: Score = metric
        self.metric_name = NAMES[metric]

    def __repr__(self) -> str:
        return f"MultiLabel(labels={self.labels}, metric={self._metric!r})"

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Returns the inputs and the labels of `(input, target)`, as numbers from 0 to 1; no labels for `(input,)`.

        Raises:
            PenjingError: the batch is neither.
        """
        inputs, labels = with_targets(batch, "MultiLabel")
        # Labels in floating point can be mixed by augmentations; whole numbers might be classes.
        return inputs, labels.float() if labels is not None and labels.ndim == 2 else labels

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Returns the mean binary cross-entropy over samples and labels."""
        logits, wanted = self.checked(outputs, targets)
        return F.binary_cross_entropy_with_logits(logits.float(), wanted.float())

    def metric(self) -> Metric:
        """Returns a fresh metric, of torchmetrics."""
        from penjing.tasks._label_scores import METRICS  # torchmetrics takes longer to import than all of Penjing

        return METRICS[self._metric](self)

    def constant(self, targets: Iterable[Tensor]) -> float:
        """Returns the metric of the best network that answers every sample alike.

        Args:
            targets: labels of all batches, `(N, labels)` each.
        """
        share = torch.cat([one.double() for one in targets]).mean(0)
        if self._metric == "f1":  # a label that is always answered with yes has recall 1 and its share as precision
            return float((2 * share / (1 + share)).mean())
        return float(share[share > 0].mean()) if bool((share > 0).any()) else 0.0

    def checked(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits and labels, both `(N, labels)` on the logits' device, after checking that they fit.

        Raises:
            PenjingError: the shapes don't fit, or a label is neither 0 nor 1, nor a share between the two.
        """
        logits, wanted = first_tensor(outputs), targets
        if logits.ndim != 2 or logits.shape[1] != self.labels or logits.shape != wanted.shape:
            indices = wanted.ndim == 1 and not wanted.is_floating_point()
            raise PenjingError(
                f"MultiLabel({self.labels}) needs logits (N, {self.labels}) from the model and targets of 0 and 1 of the same "
                f"shape from the loader, but got {tuple(logits.shape)} and {tuple(wanted.shape)}."
                + (" For one class per sample use Classification." if indices else "")
            )
        wrong = (wanted < 0) | (wanted > 1)
        if bool(wrong.any()):
            at = wrong.nonzero()[0].tolist()
            raise PenjingError(
                f"MultiLabel needs targets from 0 (no) to 1 (yes), but label {at[1]} of sample {at[0]} of a batch is "
                f"{wanted[tuple(at)].item():g}."
            )
        return logits, wanted.to(logits.device)


_RULES = {"labels": whole(1, 2**20), "threshold": number(above=0, below=1)}
