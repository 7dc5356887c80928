"""The table of balances, and what a balance is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from penjing.registry import Entry, Registry

Backward = Callable[[Tensor], None]


class Balance(nn.Module, ABC):
    """How the task's loss and the teacher's guidance become one step.

    Its parameters are trained beside the student; its buffers are what it remembers. Checkpoints keep both.
    """

    surgery = False  # whether it changes gradients, which takes all of them in one process

    @abstractmethod
    def combined(self, task: Tensor, guidance: Tensor) -> Tensor:
        """Returns one loss, a scalar, of the task's loss and of the guidance, two scalars."""

    def backward(self, task: Tensor, guidance: Tensor, parameters: Sequence[Tensor], backward: Backward) -> None:
        """Adds the step's gradients to the parameters'.

        Args:
            task: the task's loss, a scalar.
            guidance: the signal's, a scalar.
            parameters: those of the student.
            backward: adds the gradients of a loss to the parameters', as Accelerate does. A balance calls it once, or computes
                the gradients by itself and doesn't call it.
        """
        backward(self.combined(task, guidance))

    def measured(self) -> dict[str, float]:
        """Returns what the balance has measured in all steps so far, by name; empty where it measures nothing."""
        return {}


@dataclass(frozen=True, kw_only=True)
class BalanceEntry(Entry[type[Balance]]):
    """A registered balance: a class, called with the balance's choices."""


balances = Registry("balance", BalanceEntry)
"""Each is a class in a file of its own."""
