"""The signal "contrastive": which of the teacher's vectors belongs to a sample."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.distillation.comparison import Comparison
from penjing.distillation.inner import compared_taps, unit
from penjing.distillation.signals._registry import Signal, signals
from penjing.errors import PenjingError


@signals.register(
    source="Tian, Krishnan and Isola, Contrastive Representation Distillation, ICLR 2020, arXiv:1910.10699 (with negatives "
    "from the batch)",
    name="contrastive",
)
class Contrastive(Signal):
    """Asks that the student's vector of a sample tell the teacher's vector of this sample from those of the others.

        h(t, s) = e^(g(t)·g(s)/τ) / (e^(g(t)·g(s)/τ) + N/M)
        loss = −mean over samples of [log h(tᵢ, sᵢ) + Σ over j ≠ i of log(1 − h(tⱼ, sᵢ))]

    g are learned linear maps of student and teacher to `dimension` channels, scaled to length 1. A map or sequence is first
    averaged over the positions that count. The paper draws N = 16384 negatives from a memory of all M samples of the data;
    here the N other samples of the batch of M = N + 1 are the negatives, so that nothing has to be remembered. Large batches
    are better.
    """

    taps = "last"

    def __init__(self, tau: float = 0.07, dimension: int = 128) -> None:
        """Takes τ > 0, smaller tells more finely apart, and the number of channels in which vectors are compared."""
        super().__init__()
        self.tau, self.dimension = tau, dimension
        self.students, self.teachers = nn.ModuleList(), nn.ModuleList()

    def prepare(self, seen: Comparison) -> None:
        """Makes the linear maps.

        Raises:
            PenjingError: values can't be compared, or the batch has a single sample.
        """
        for pair in compared_taps(seen):
            if len(pair.student) < 2:
                raise PenjingError(
                    "The contrastive signal tells the samples of a batch apart, and the batch has a single one. Give batches "
                    "of two samples or more, better of 64."
                )
            self.students.append(nn.Linear(pair.student.shape[1], self.dimension).to(pair.student))
            self.teachers.append(nn.Linear(pair.teacher.shape[1], self.dimension).to(pair.teacher))

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch, mean over the pairs of inner values; 0 for a last batch of a single sample."""
        losses = []
        for pair, own, target in zip(compared_taps(seen), self.students, self.teachers, strict=True):
            student, teacher = pair.samples()
            losses.append(self._apart(unit(own(student)), unit(target(teacher))))
        return sum(losses[1:], losses[0]) / len(losses)

    def _apart(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss of vectors of length 1, `(samples, dimension)`."""
        samples = len(student)
        if samples < 2:
            return student.sum() * 0
        # h = sigmoid(x) and 1 − h = sigmoid(−x), with x = g(t)·g(s)/τ − log(N/M)
        critic = student @ teacher.T / self.tau - math.log((samples - 1) / samples)
        same = torch.eye(samples, dtype=torch.bool, device=critic.device)
        return -F.logsigmoid(torch.where(same, critic, -critic)).sum() / samples
