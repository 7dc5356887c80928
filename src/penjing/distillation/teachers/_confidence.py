"""The teacher "confidence": for each sample, those networks count most that are surest of it."""

import math
from typing import Any

import torch
from torch import Tensor

from penjing.distillation.pairs import floating
from penjing.distillation.signals import holds_labels
from penjing.distillation.teachers._joined import all_answers, hold_values, joined, log_mixture
from penjing.distillation.teachers._registry import Lesson, Teacher, teachers
from penjing.errors import PenjingError
from penjing.tasks import IGNORED


@teachers.register(
    source="Zhang, Chen and Wang, Confidence-Aware Multi-Teacher Knowledge Distillation, ICASSP 2022, equations 2 to 4, "
    "arXiv:2201.00007",
    name="confidence",
    networks="several",
)
class Confidence(Teacher):
    """Answers with a mean of what several networks answer, weighted sample by sample by how sure each network is.

        wₖ = (1 − exp(Lₖ) / Σⱼ exp(Lⱼ)) / (K − 1)
        answer = log Σₖ wₖ softmax(zₖ)

    Lₖ is the cross-entropy of network k with the label; where there is no label for a position, the entropy of its own
    probabilities. The paper adds up the losses with these weights, Σₖ wₖ KL(pₖ ‖ student); the answer here gives a loss with the
    same gradients at a temperature of 1, and any signal of outputs can use it. Of dense outputs, each position has its weights.
    The paper's second part, weights of inner values, isn't here.
    """

    def answers(self, lesson: Lesson) -> Any:
        """Returns the weighted mean of the networks' outputs, nested as the first one's.

        Raises:
            PenjingError: the networks' outputs have different shapes, or hold no classes.
        """
        outputs = all_answers(self.networks, lesson)
        if hold_values(self.kind, outputs):
            shapes = [tuple(tensor.shape) for tensor in floating(outputs[0])]
            raise PenjingError(
                f"The teacher 'confidence' weighs networks by how sure they are of a class, and outputs of shapes {shapes} are "
                "values, in which nothing says how sure a network is: take the teacher 'mean'."
            )
        return joined(outputs, lambda logits: log_mixture(logits, _log_weights(logits, lesson.targets)))


def _log_weights(logits: Tensor, targets: Any) -> Tensor:
    """Returns log wₖ of logits `(networks, N, classes, ...)`, as `(networks, N, 1, ...)`."""
    if len(logits) == 1:
        return torch.zeros_like(logits[:, :, :1])
    log_probabilities = logits.detach().log_softmax(2)
    unsure = -(log_probabilities.exp() * log_probabilities).sum(2, keepdim=True)
    if isinstance(targets, Tensor) and holds_labels(logits[0], targets):
        labels = targets.to(logits.device).long()
        chosen = labels.clamp(min=0).unsqueeze(1).expand(len(logits), -1, 1, *labels.shape[1:])
        cross_entropy = -log_probabilities.gather(2, chosen)
        unsure = torch.where((labels != IGNORED).unsqueeze(1), cross_entropy, unsure)
    return (1 - unsure.softmax(0)).log() - math.log(len(logits) - 1)
