"""The teacher "mean": an ensemble of networks."""

import math
from typing import Any

import torch
from torch import Tensor

from penjing.distillation.teachers._joined import all_answers, hold_values, joined, log_mixture
from penjing.distillation.teachers._registry import Lesson, Teacher, teachers


@teachers.register(
    source="Hinton, Vinyals and Dean 2015, section 4, arXiv:1503.02531 (the arithmetic mean)",
    name="mean",
    networks="several",
)
class Mean(Teacher):
    """Answers with the mean of what several networks answer.

        logits:  log of mean over k of softmax(zₖ), so that the softmax of the answer is the mean of the probabilities
        values:  mean over k of zₖ

    Which of the two it is follows the task, as the choice of a signal does (see `suited`). Of logits, what all classes have in
    common is lost: a signal that compares logits as numbers, "values", is given log-probabilities. A temperature of the signal
    softens the mean, not the networks one by one.
    """

    constant = True

    def answers(self, lesson: Lesson) -> Any:
        """Returns the mean of the networks' outputs, nested as the first one's.

        Raises:
            PenjingError: the networks' outputs have different shapes.
        """
        outputs = all_answers(self.networks, lesson)
        return joined(outputs, _mean_of_values if hold_values(self.kind, outputs) else mean_of_logits)


def _mean_of_values(values: Tensor) -> Tensor:
    return values.mean(0)


def mean_of_logits(logits: Tensor) -> Tensor:
    """Returns the log of the mean probabilities of logits `(networks, N, classes, ...)`."""
    return log_mixture(logits, torch.tensor(-math.log(len(logits)), dtype=logits.dtype, device=logits.device))
