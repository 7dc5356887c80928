"""One class per sequence of tokens, such as the topic of a text."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from penjing.checks import NAME, check, several
from penjing.errors import PenjingError
from penjing.tasks._classification import Classification
from penjing.tasks._outputs import first_tensor
from penjing.tasks._registry import tasks
from penjing.tasks._tokens import INPUTS, named_targets, tokens_counted


@tasks.register(source="Devlin et al., BERT, NAACL 2019, section 4.1, arXiv:1810.04805")
class SequenceClassification(Classification):
    """One class per sequence of tokens: cross-entropy and top-1 accuracy, whatever the sequences are padded to.

    Batches are `(ids, target)`, `((ids, mask, ...), target)`, or a dictionary as Hugging Face's collators give it, with "labels"
    for the targets. The network's first output holds logits `(N, classes)`. Padded positions count for nothing where a teacher's
    inner values are compared.

    Args:
        classes: as that of `Classification`.
        label_smoothing: as that of `Classification`.
        padding: the id of padded positions in the first input; None where "attention_mask" tells, or none is padded.
        inputs: the names of the network's inputs, in order: the entries of a dictionary that it takes.

    Example:
        >>> import torch
        >>> task = SequenceClassification(3)
        >>> batch = {"input_ids": torch.tensor([[5, 4, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
        >>> task.counted(task.split(batch)[0]).tolist()
        [[True, True, False]]
    """

    def __init__(
        self,
        classes: int | None = None,
        label_smoothing: float = 0.0,
        padding: int | None = None,
        inputs: Sequence[str] = INPUTS,
    ) -> None:
        super().__init__(classes, label_smoothing, padding)
        check({"inputs": inputs}, NAMES)
        self.inputs = tuple(inputs)

    def __repr__(self) -> str:
        return f"Sequence{super().__repr__()}"

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Returns the network's inputs and the class indices; no indices without labels.

        Raises:
            PenjingError: the batch is of another form.
        """
        return named_targets(batch, self.inputs, "SequenceClassification")

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy of logits `(N, classes)` for class indices `(N,)`."""
        logits = first_tensor(outputs)
        if logits.ndim != 2:
            raise PenjingError(
                f"SequenceClassification needs logits (N, classes) from the model, but got {tuple(logits.shape)}. "
                + ("For a class per token use TokenClassification." if logits.ndim == 3 else "")
            )
        return super().loss(outputs, targets)

    def counted(self, inputs: Sequence[Tensor]) -> Tensor | None:
        """Returns which positions of the inputs hold a token, boolean `(N, positions)`; None where nothing tells."""
        return tokens_counted(inputs, self.inputs, self.padding)


NAMES = {"inputs": several(NAME, "a sequence of names")}
