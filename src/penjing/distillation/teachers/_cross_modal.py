"""The teacher "cross_modal": it sees another input of a sample than its student."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from penjing.checks import check, several, whole
from penjing.distillation.teachers._registry import Lesson, Teacher, teachers
from penjing.errors import PenjingError

MOST_INPUTS = 1000  # inputs of one batch: a larger position is a typing error


@teachers.register(
    source="Gupta, Hoffman and Malik, Cross Modal Distillation for Supervision Transfer, CVPR 2016, arXiv:1507.00448",
    name="cross_modal",
)
class CrossModal(Teacher):
    """Answers by one kind of input what its student must say by another, such as a depth image of the same scene.

    A batch is `((input, input, …), target)`, or `((input, input, …),)` without labels. Positions count from 0. While the student
    is judged it is alone: let the validation batches hold its own inputs only.
    """

    constant = True

    def __init__(self, network: nn.Module, sees: Sequence[int] = (1,), shows: Sequence[int] = (0,)) -> None:
        """Takes the network, the positions of the inputs that it sees, and of those that the student is shown.

        Raises:
            PenjingError: a position isn't a whole number from 0.
        """
        super().__init__(network)
        position = several(whole(0, MOST_INPUTS), "positions of inputs, counted from 0, such as (1,)")
        check({"sees": sees, "shows": shows}, {"sees": position, "shows": position})
        self.sees, self.shows = tuple(sees), tuple(shows)
        if not (self.sees and self.shows):
            raise PenjingError(
                "The teacher 'cross_modal' and its student need an input each: name one in sees= and shows=."
            )

    def identity(self) -> str:
        """Returns a text that differs for other weights and for other positions."""
        return f"{super().identity()} sees {self.sees}, shows {self.shows}"

    def answers(self, lesson: Lesson) -> Any:
        """Returns the network's outputs for the inputs that it sees."""
        return lesson.run(self.networks[0], self.seen(lesson.inputs))

    def seen(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Returns the inputs that the network sees.

        Raises:
            PenjingError: the batch has too few inputs.
        """
        return _taken(inputs, self.sees, "sees", "the teacher")

    def shown(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Returns the inputs that the student is shown.

        Raises:
            PenjingError: the batch has too few inputs.
        """
        return _taken(inputs, self.shows, "shows", "the student")


def _taken(inputs: Sequence[Any], positions: Sequence[int], argument: str, whose: str) -> Sequence[Any]:
    if max(positions) >= len(inputs):
        raise PenjingError(
            f"The batch has {len(inputs)} input{'' if len(inputs) == 1 else 's'}, and {whose} is to be given those at the "
            f"positions {tuple(positions)}, counted from 0: let batches be ((input, input, …), target), or name other positions "
            f"with {argument}=."
        )
    return tuple(inputs[position] for position in positions)
