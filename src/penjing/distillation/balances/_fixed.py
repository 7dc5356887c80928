"""The balance "fixed": the teacher's weight stays as the user gave it."""

from torch import Tensor

from penjing.distillation.balances._registry import Balance, balances


@balances.register(source="Hinton, Vinyals and Dean 2015, section 2, arXiv:1503.02531", name="fixed")
class Fixed(Balance):
    """Weighs the guidance by a fixed λ and the task by the rest: (1 − λ) · task + λ · guidance."""

    def __init__(self, weight: float = 0.9) -> None:
        """Takes λ, between 0 (labels alone) and 1 (teacher alone)."""
        super().__init__()
        self.weight = weight

    def combined(self, task: Tensor, guidance: Tensor) -> Tensor:
        """Returns (1 − λ) · task + λ · guidance."""
        return (1 - self.weight) * task + self.weight * guidance
