"""One class per token, such as the part of speech of each word, or the next token of a text."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.checks import NAME, check, number, several, whole
from penjing.errors import PenjingError, unknown_name
from penjing.tasks._likeness import Answers
from penjing.tasks._outputs import first_tensor
from penjing.tasks._positions import IGNORED, TOKEN
from penjing.tasks._registry import tasks
from penjing.tasks._task import Metric
from penjing.tasks._tokens import INPUTS, named_targets, tokens_counted

Score = Literal["accuracy", "f1"]


@tasks.register(source="Ramshaw and Marcus, Text Chunking Using Transformation-Based Learning, 1995")
class TokenClassification:
    """One class per token: cross-entropy, and accuracy or F1, over the tokens that count.

    Batches are `(ids, target)`, `((ids, mask, ...), target)`, or a dictionary as Hugging Face's collators give it, with "labels"
    for the targets. The network's first output holds logits `(N, positions, classes)`, targets class indices `(N, positions)`. A
    position counts for nothing, neither in loss and metric nor where a teacher is learned from, if its target is −100, its id is
    the padding's, or "attention_mask" is 0 there.

    Args:
        classes: number of classes, at least 2.
        metric: "accuracy", the share of right tokens; or "f1" of tokens of any class but `outside`, which is 2 · right /
            (answered + wanted).
        outside: the class of tokens that belong to nothing, for "f1".
        label_smoothing: as that of `Classification`.
        padding: the id of padded positions in the first input; None where "attention_mask" or −100 tells, or none is padded.
        inputs: the names of the network's inputs, in order: the entries of a dictionary that it takes.

    Example:
        >>> import torch
        >>> metric = TokenClassification(2).metric()
        >>> metric.update(torch.tensor([[[2.0, 1.0], [0.0, 3.0], [5.0, 0.0]]]), torch.tensor([[0, 0, -100]]))
        >>> float(metric.compute())
        0.5
    """

    labelled = True
    answers: Answers = "classes"

    def __init__(
        self,
        classes: int,
        metric: Score = "accuracy",
        outside: int = 0,
        label_smoothing: float = 0.0,
        padding: int | None = None,
        inputs: Sequence[str] = INPUTS,
    ) -> None:
        """Takes the number of classes and the name of the metric.

        Raises:
            PenjingError: the metric's name is unknown, or a number isn't allowed.
        """
        check({"classes": classes, "outside": outside, "label_smoothing": label_smoothing, "padding": padding,
               "inputs": inputs}, _RULES)  # fmt: skip
        if metric not in get_args(Score):
            raise unknown_name("metric of tokens", str(metric), get_args(Score))
        self.classes, self.outside, self.padding = classes, outside, padding
        self.label_smoothing, self.inputs = label_smoothing, tuple(inputs)
        self._metric: Score = metric
        self.metric_name = {"accuracy": "token accuracy", "f1": "token F1"}[metric]

    def __repr__(self) -> str:
        return f"TokenClassification(classes={self.classes}, metric={self._metric!r})"

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Returns the network's inputs and the class indices, −100 where a position doesn't count; no indices without labels.

        Raises:
            PenjingError: the batch is of another form, or targets and inputs have different positions.
        """
        inputs, targets = named_targets(batch, self.inputs, "TokenClassification")
        counted = None if targets is None else self.counted(inputs)
        if targets is None or counted is None:
            return inputs, targets
        if counted.shape != targets.shape:
            raise PenjingError(
                f"TokenClassification needs a target for each position, {tuple(counted.shape)}, but the loader gave "
                f"{tuple(targets.shape)}: pad the targets as the ids are, with −100."
            )
        return inputs, targets.long().masked_fill(~counted, IGNORED)

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy over the tokens that count; 0 where none does."""
        logits, indices = self.checked(outputs, targets)
        try:
            total = F.cross_entropy(
                logits.float(), indices, ignore_index=IGNORED, label_smoothing=self.label_smoothing, reduction="sum"
            )
        except IndexError as error:
            raise self.out_of_range(indices) from error
        return total / (indices != IGNORED).sum().clamp(min=1)

    def counted(self, inputs: Sequence[Tensor]) -> Tensor | None:
        """Returns which positions of the inputs hold a token, boolean `(N, positions)`; None where nothing tells."""
        return tokens_counted(inputs, self.inputs, self.padding)

    def compared(self, outputs: Any) -> Tensor:
        """Returns the logits with their classes along axis 1, `(N, classes, positions)`.

        Raises:
            PenjingError: the first output doesn't hold logits of tokens.
        """
        logits = first_tensor(outputs)
        if logits.ndim != 3 or logits.shape[2] != self.classes:
            raise PenjingError(
                f"TokenClassification needs logits (N, positions, {self.classes}) from the model, but got {tuple(logits.shape)}."
                + (" For one class per sequence use SequenceClassification." if logits.ndim == 2 else "")
            )
        return logits.transpose(1, 2)

    def metric(self) -> Metric:
        """Returns a fresh metric, of torchmetrics."""
        from penjing.tasks._token_scores import METRICS  # torchmetrics takes longer to import than all of Penjing

        return METRICS[self._metric](self)

    def constant(self, targets: Iterable[Tensor]) -> float:
        """Returns the metric of the best network that gives every token the same class.

        Args:
            targets: class indices of all batches, `(N, positions)` each.
        """
        kept = torch.cat([one[one != IGNORED].flatten() for one in targets])
        counts = kept.bincount(minlength=self.classes)
        if self._metric == "accuracy":
            return float(counts.max() / max(1, len(kept)))
        inside = int((kept != self.outside).sum())
        counts[self.outside] = 0
        return float(2 * counts.max() / max(1, len(kept) + inside))

    def checked(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits `(N, classes, positions)` and class indices (int64, on their device), whose shapes fit.

        Raises:
            PenjingError: they don't.
        """
        logits = self.compared(outputs)
        positions = (logits.shape[0], logits.shape[2])
        if tuple(targets.shape) != positions or targets.is_floating_point() or targets.dtype == torch.bool:
            raise PenjingError(
                f"TokenClassification needs integer class indices {positions} for logits {tuple(first_tensor(outputs).shape)} "
                f"from the model, but the loader gave {tuple(targets.shape)} {targets.dtype}. Mark positions without a class "
                "with −100."
            )
        return logits, targets.to(logits.device).long()

    def out_of_range(self, indices: Tensor) -> PenjingError:
        """Returns the error for indices that are no classes."""
        wrong = ((indices < 0) | (indices >= self.classes)) & (indices != IGNORED)
        row, position = wrong.nonzero()[0].tolist()
        return PenjingError(
            f"TokenClassification(classes={self.classes}) needs class indices from 0 to {self.classes - 1}, or −100, but "
            f"position {position} of sample {row} of a batch has {int(indices[row, position])}. Give the right number of "
            "classes, or mark positions without a class with −100."
        )


_RULES = {
    "classes": whole(2, 2**20),
    "outside": whole(0, 2**20),
    "label_smoothing": number(0, below=1),
    "padding": TOKEN,
    "inputs": several(NAME, "a sequence of names"),
}
