"""A teacher as a signal listens to it: its answers, and the inner values that the signal compares."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from penjing.distillation import Signal, Teacher, signals
from penjing.distillation.pairs import pairs
from penjing.distillation.taps import Named, Pair, tap_pairs
from penjing.distillation.teachers import Lesson
from penjing.errors import PenjingError
from penjing.tasks import Task, answers_of, compared_of
from penjing.training.settings import AUTO
from penjing.training.tapped import Tapped, called


class Listened:
    """A teacher, with taps in its network where a signal looks inside.

    Attributes:
        teacher: as it was begun for this training.
        pairs: the names of the inner values of student and teacher that are compared.
    """

    def __init__(self, teacher: Teacher, task: Task) -> None:
        """Takes a teacher, at first without taps, and the task, which says in what form outputs are compared."""
        self.teacher, self.pairs, self._task = teacher, list[Pair](), task
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
            return compared_of(self._task, outputs)

        return self.teacher.answers(Lesson(inputs, targets, run)), taps

    def parameters(self) -> Mapping[str, Tensor]:
        """Returns the network's parameters by name; none where there is no single network."""
        return {} if self.teacher.network is None else dict(self.teacher.network.named_parameters())


def check_teacher(student: nn.Module, teacher: Teacher, signal: str, task: Task, batch: Any) -> None:
    """Makes sure that a teacher can teach a student by a signal, before anything is trained.

    Args:
        student: as it will be trained, or the network that it is made of.
        teacher: as a user made it.
        signal: the name of a signal, or "auto".
        task: splits batches.
        batch: one of the training batches; None to look at the networks alone.

    Raises:
        PenjingError: the teacher can't take the batch, its outputs aren't like the student's, or the signal finds nothing to
            compare in the two.
    """
    device = next((tensor.device for tensor in student.parameters()), torch.device("cpu"))
    listened = Listened(teacher.begin(student, device, answers_of(task)), task)
    kind = None if signal == AUTO else signals[signal].function
    if kind is not None:
        listened.look_inside(student, kind(), signal, AUTO)
    if batch is None or (kind is not None and kind.taps):
        return
    inputs, targets = send_to_device(task.split(batch), device)
    with torch.no_grad():
        taught, _ = listened(inputs, targets)
        outputs = called("The model", Tapped(student), listened.teacher.shown(inputs))[0]
        pairs(compared_of(task, outputs), taught)
