"""What signals have in common that ask for the teacher's inner values themselves."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from penjing.distillation.comparison import Comparison
from penjing.distillation.inner import Compared, compared, inner_values, not_comparable, regressor
from penjing.distillation.signals._registry import Signal
from penjing.errors import PenjingError


class Regressed(Signal):
    """Asks for the teacher's inner values, through a regressor for each, which maps the student's channels to the teacher's.

    Attributes:
        regressors: one for each pair of inner values, in their order.
    """

    def __init__(self, regressors: Sequence[nn.Module] = ()) -> None:
        """Takes the regressors.

        Args:
            regressors: modules that make the teacher's shape of the student's inner values, one for each pair; trained
                beside the student. Left out, they are 1×1 convolutions where the numbers of channels differ (a linear map of
                the last axis, of sequences and vectors), and nothing elsewhere.
        """
        super().__init__()
        self.regressors = nn.ModuleList(regressors)

    def prepare(self, seen: Comparison) -> None:
        """Makes the regressors that weren't given.

        Raises:
            PenjingError: there is nothing to compare, or values can't be compared.
        """
        values = inner_values(seen)
        if not self.regressors:
            self.regressors = nn.ModuleList(regressor(own, target) for own, target in values)
        with torch.no_grad():
            self.compared(seen)

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the mean over all pairs of inner values, and over the positions that count."""
        losses = [pair.mean(self.apart(pair.student, pair.teacher)) for pair in self.compared(seen)]
        return sum(losses[1:], losses[0]) / len(losses)

    @abstractmethod
    def apart(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss at each position, of values of one shape: `(N, channels, positions...)` to `(N, positions...)`."""

    def compared(self, seen: Comparison) -> list[Compared]:
        """Returns what the regressors make of the student's inner values, with the teacher's.

        Raises:
            PenjingError: shapes differ behind the regressors, or there are more or fewer of these than values.
        """
        values = inner_values(seen)
        if len(values) != len(self.regressors):
            raise PenjingError(
                f"There are {len(self.regressors)} regressors for {len(values)} pairs of inner values: give one for each."
            )
        found = []
        for module, (own, target) in zip(self.regressors, values, strict=True):
            regressed = module(own)
            pair = compared(regressed, target, seen.counted)
            if pair.student.shape != pair.teacher.shape:
                raise not_comparable(regressed, target)
            found.append(pair)
        return found
