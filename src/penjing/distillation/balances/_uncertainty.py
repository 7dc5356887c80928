"""The balance "uncertainty": both weights are learned."""

import torch
from torch import Tensor, nn

from penjing.distillation.balances._registry import Balance, balances


@balances.register(
    source="Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, 2018, arXiv:1705.07115",
    name="uncertainty",
)
class Uncertainty(Balance):
    """Learns how noisy each loss is, and weighs it by that: Σ exp(−sᵢ) · lossᵢ + sᵢ, with a learned sᵢ = log σᵢ² for each."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(2))

    def combined(self, task: Tensor, guidance: Tensor) -> Tensor:
        """Returns the sum over both losses of exp(−s) · loss + s."""
        losses = torch.stack([task, guidance])
        return (torch.exp(-self.log_variances) * losses + self.log_variances).sum()

    def measured(self) -> dict[str, float]:
        """Returns the guidance's weight over the task's."""
        task, guidance = torch.exp(-self.log_variances.detach()).tolist()
        return {"balance": guidance / task}
