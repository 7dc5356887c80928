"""The signal "dkd": soft labels, split into the labelled class and all others."""

import torch
from torch import Tensor
from torch.nn import functional as F

from penjing.distillation.comparison import Comparison, mean_over
from penjing.distillation.pairs import counted_for, pairs
from penjing.distillation.signals._registry import Signal, signals
from penjing.distillation.signals._soft_labels import holds_labels
from penjing.errors import PenjingError
from penjing.tasks import IGNORED


@signals.register(
    source="Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, arXiv:2203.08679", needs={"labels"}, name="dkd"
)
class DecoupledLabels(Signal):
    """Asks for the probability of the labelled class, and for how the other classes compare, each with its own weight.

        loss = T² · (α · KL(bᵀ ‖ bˢ) + β · KL(p̂ᵀ ‖ p̂ˢ)), mean over the positions that count

    b are the two probabilities of the labelled class and of all others together, p̂ those of the other classes among
    themselves, both softened by T. Soft labels have α = 1 and β = 1 − the teacher's probability of the labelled class, so
    that a sure teacher tells nothing of the others. Of nested outputs, those count for which there are labels.
    """

    by_head = True

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        """Takes the weight α of the labelled class, β of the others, and the temperature T > 0."""
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch.

        Raises:
            PenjingError: there are no class indices for any of the outputs.
        """
        labels = seen.targets if isinstance(seen.targets, Tensor) else None
        compared = pairs(seen.student.outputs, seen.teacher.outputs)
        labelled = [(own, target) for own, target in compared if labels is not None and holds_labels(own, labels)]
        if labels is None or not labelled:
            given = "no class indices" if labels is None else f"labels {labels.dtype} of shape {tuple(labels.shape)}"
            raise PenjingError(
                f"dkd compares logits (batch, classes, ...) at the labelled class, but got outputs of shapes "
                f"{[tuple(own.shape) for own, _ in compared]} and {given}. Give data with class indices (batch, ...), or "
                'use signal="soft_labels", which needs none.'
            )
        losses = []
        for own, target in labelled:
            indices = labels.to(own.device).long()
            counted = indices != IGNORED
            weights = counted_for(own, seen.counted)
            weights = counted if weights is None else counted * weights
            losses.append(mean_over(self._apart(own, target, indices.clamp(min=0)), weights))
        return sum(losses[1:], losses[0]) / len(losses)

    def _apart(self, student: Tensor, teacher: Tensor, indices: Tensor) -> Tensor:
        """Returns the loss at each position: `(batch, classes, ...)` to `(batch, ...)`."""
        chosen = torch.zeros_like(student, dtype=torch.bool).scatter_(1, indices.unsqueeze(1), True)
        (own, own_others), (target, target_others) = (
            _decoupled(logits / self.temperature, chosen) for logits in (student, teacher)
        )
        labelled = F.kl_div(own, target, reduction="none", log_target=True).sum(1)
        others = F.kl_div(own_others, target_others, reduction="none", log_target=True).sum(1)
        return (self.alpha * labelled + self.beta * others) * self.temperature**2


def _decoupled(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Returns log b, `(batch, 2, ...)`, and log p̂, `(batch, classes, ...)`, which is 0 at the class that was chosen."""
    everything = logits.logsumexp(1)
    others = logits.masked_fill(chosen, -torch.inf).logsumexp(1)
    labelled = logits.masked_fill(~chosen, 0).sum(1)
    binary = torch.stack([labelled - everything, others - everything], 1)
    return binary, (logits - others.unsqueeze(1)).masked_fill(chosen, 0)
