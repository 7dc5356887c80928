"""One class per sample (or per pixel): cross-entropy and top-1 accuracy."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from penjing.checks import check, number, optional, whole
from penjing.errors import PenjingError
from penjing.tasks._likeness import Answers
from penjing.tasks._outputs import first_tensor, with_targets
from penjing.tasks._positions import TOKEN, unpadded
from penjing.tasks._registry import tasks
from penjing.tasks._task import Metric


@tasks.register(source="Goodfellow, Bengio and Courville, Deep Learning, 2016, section 6.2.2.3 (softmax)")
class Classification:
    """Cross-entropy loss and top-1 accuracy for class indices.

    Batches are `(input, target)`, `((input, input, ...), target)`, or `(input,)` where labels are missing (calibration
    images). The network may return a tensor of logits `(N, classes, ...)`, or a dict, tuple or list, whose first tensor
    then holds the logits.

    Args:
        classes: number of classes; a network with another number of outputs is refused. None allows any number.
        label_smoothing: share of the target's probability that is spread over all classes (Szegedy et al. 2016);
            it changes the loss, never the metric.
        padding: where the first input holds token ids `(N, positions)`, the id of padded positions: a teacher's inner values
            aren't compared there. None where no position is padded.

    Example:
        >>> import torch
        >>> task = Classification()
        >>> metric = task.metric()
        >>> metric.update(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        >>> float(metric.compute())
        0.5
    """

    labelled = True
    metric_name = "accuracy"
    answers: Answers = "classes"

    def __init__(self, classes: int | None = None, label_smoothing: float = 0.0, padding: int | None = None) -> None:
        given = {"classes": classes, "label_smoothing": label_smoothing, "padding": padding}
        check(given, _RULES)
        self.classes = classes
        self.label_smoothing = label_smoothing
        self.padding = padding

    def __repr__(self) -> str:
        padding = "" if self.padding is None else f", padding={self.padding}"
        return f"Classification(classes={self.classes}, label_smoothing={self.label_smoothing}{padding})"

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Returns the inputs and the class indices of `(input, target)`; the indices are None for `(input,)`.

        Raises:
            PenjingError: the batch is neither.
        """
        return with_targets(batch, "Classification")

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy of logits `(N, classes, ...)` for class indices `(N, ...)`."""
        logits, indices = checked(outputs, targets, self.classes)
        try:
            return F.cross_entropy(logits.float(), indices, label_smoothing=self.label_smoothing)
        except IndexError as error:
            raise out_of_range(logits, indices) from error

    def counted(self, inputs: Sequence[Tensor]) -> Tensor | None:
        """Returns which positions of the inputs aren't padded, boolean `(N, positions)`; None without padding."""
        return unpadded(inputs, self.padding)

    def metric(self) -> Metric:
        """Returns a fresh top-1 accuracy, a torchmetrics metric."""
        from penjing.tasks._top_one import TopOne  # torchmetrics takes longer to import than all of Penjing

        return TopOne(self.classes)

    def constant(self, targets: Iterable[Tensor]) -> float:
        """Returns the best accuracy of a network that answers every sample alike: the share of the most frequent class.

        Args:
            targets: class indices of all batches, `(N, ...)` each.
        """
        counts: Counter[int] = Counter()
        for batch in targets:
            found, times = batch.unique(return_counts=True)
            counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
        return max(counts.values()) / sum(counts.values()) if counts else 0.0


_RULES = {
    "classes": optional(whole(1, 2**20)),
    "label_smoothing": number(0, below=1),
    "padding": TOKEN,
}


def checked(outputs: Any, targets: Tensor, classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns logits and class indices (int64, on the logits' device) after checking that their shapes fit.

    Args:
        outputs: the outputs of the network.
        targets: the targets that the loader gave.
        classes: number of logits that there must be per sample; None for any number from two on.

    Raises:
        PenjingError: the shapes don't fit, or there is only one logit per sample, which would always be the largest.
    """
    logits = first_tensor(outputs)
    if logits.ndim < 2 or (logits.shape[0], *logits.shape[2:]) != tuple(targets.shape) or targets.is_floating_point():
        raise PenjingError(
            f"Classification needs logits (N, classes, ...) and integer class indices (N, ...), but got "
            f"{tuple(logits.shape)} from the model and {tuple(targets.shape)} {targets.dtype} from the loader. "
            "Write a Task for anything else."
        )
    if logits.shape[1] == 1:
        raise PenjingError(
            "The model has a single output, which is always the largest one: its accuracy would be 1 whatever it computes. "
            "Give it an output for each class, or write a Task that decides by a threshold."
        )
    if classes is not None and logits.shape[1] != classes:
        raise PenjingError(
            f"The model has {logits.shape[1]} outputs, but the data has {classes} classes: this model and this data don't "
            "belong together. For a network that knows more classes than the data shows, give data that numbers them as the "
            "network does and says how many there are: pj.Data(…, task=pj.tasks.Classification(CLASSES))."
        )
    return logits, targets.to(logits.device).long()


def out_of_range(logits: Tensor, indices: Tensor) -> PenjingError:
    return PenjingError(
        f"The model has {logits.shape[1]} outputs, but the data's class indices go from {int(indices.min())} to "
        f"{int(indices.max())}: this model and this data don't belong together."
    )
