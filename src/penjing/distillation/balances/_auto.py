"""The balance "auto": the teacher's weight follows the sizes of the two losses."""

import torch
from torch import Tensor

from penjing.distillation.balances._registry import Balance, balances

KEPT = 0.99  # share of the running mean that each step keeps: it looks back over about a hundred steps


@balances.register(
    source="practice; the ratio of running losses as in Groenendijk et al., Multi-Loss Weighting with CoV, 2021",
    name="auto",
)
class Auto(Balance):
    """Keeps the running guidance about equal to the running task loss, and never above it: task + λ · guidance.

    λ = min(1, 1 / ratio), where ratio is the running mean of the guidance over the magnitude of that of the task, so that a
    guidance that is the smaller of the two is never blown up. Both means are exponential, corrected for their start, and λ has
    no gradient.
    """

    task: Tensor
    guidance: Tensor
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("task", "guidance", "steps"):
            self.register_buffer(name, torch.zeros(()))

    @property
    def weight(self) -> Tensor:
        """λ, as the steps so far give it."""
        task = self.task.abs()  # a log-density makes a loss negative, and λ must not push away from the teacher
        return torch.where(self.guidance > task, task / self.guidance.clamp(min=1e-12), torch.ones_like(task))

    def combined(self, task: Tensor, guidance: Tensor) -> Tensor:
        """Returns task + λ · guidance, with λ of the steps up to this one."""
        with torch.no_grad():
            self.steps += 1
            share = max(1 - KEPT, 1 / float(self.steps))
            self.task += share * (task.detach().to(self.task) - self.task)
            self.guidance += share * (guidance.detach().to(self.guidance) - self.guidance)
        return task + self.weight.to(guidance) * guidance

    def measured(self) -> dict[str, float]:
        """Returns λ."""
        return {"balance": float(self.weight)}
