"""A teacher as a signal listens to it: its answers, and the inner values that the signal compares."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from penjing.distillation import Teacher
from penjing.distillation.signals import Signal
from penjing.distillation.taps import Named, Pair, tap_pairs
from penjing.distillation.teachers import Lesson
from penjing.errors import PenjingError
from penjing.training.tapped import Tapped, called


class Listened:
    """A teacher, with taps in its network where a signal looks inside.

    Attributes:
        teacher: as it was begun for this training.
        pairs: the names of the inner values of student and teacher that are compared.
    """

    def __init__(self, teacher: Teacher) -> None:
        """Takes a teacher, at first without taps."""
        self.teacher, self.pairs = teacher, list[Pair]()
        self._tapped: Tapped | None = None

    def look_inside(self, student: nn.Module, signal: Signal, name: str, taps: Named) -> None:
        """Pairs the inner values that a signal compares, and taps those of the teacher.

        Raises:
            PenjingError: names match nothing, values can't be paired, or the signal looks inside and there's no one network.
        """
        network = self.teacher.network
        if network is None and (signal.taps or signal.wants_parameters):
            raise PenjingError(
                f"The signal '{name}' looks inside its teacher's network, and this teacher has none that it can look into: "
                f"{self.teacher.why_closed}. Name a single network, or use a signal that compares outputs, such as 'soft_labels'."
            )
        # Where a signal compares outputs alone, nothing is looked up in either network.
        self.pairs = tap_pairs(student, student if network is None else network, signal.taps, taps)
        self._tapped = None if network is None else Tapped(network, [other for _, other in self.pairs])

    def __call__(self, inputs: Sequence[Any], targets: Any) -> tuple[Any, list[Tensor]]:
        """Returns the teacher's answers for a batch, and the inner values.

        Raises:
            PenjingError: a network can't take the batch, or the teacher can't answer.
        """
        taps: list[Tensor] = []

        def run(network: nn.Module, given: Sequence[Any]) -> Any:
            tapped = self._tapped if network is self.teacher.network else None
            outputs, inner = called("The teacher", Tapped(network) if tapped is None else tapped, given)
            taps.extend(inner)
            return outputs

        return self.teacher.answers(Lesson(inputs, targets, run)), taps

    def parameters(self) -> Mapping[str, Tensor]:
        """Returns the network's parameters by name; none where there is no single network."""
        return {} if self.teacher.network is None else dict(self.teacher.network.named_parameters())
