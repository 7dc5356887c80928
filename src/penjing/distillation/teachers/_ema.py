"""The teacher "ema": the student's own average over its steps."""

from typing import Any

import torch
from torch import Tensor, nn

from penjing.checks import check, number
from penjing.distillation.teachers._registry import Lesson, Say, Teacher, frozen, teachers
from penjing.errors import PenjingError

DECAY = number(0, below=1)


@teachers.register(
    source="Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780",
    name="ema",
    networks="none",
)
class Ema(Teacher):
    """Answers as an exponential average of the student's weights over its steps does.

        θ′ ← α θ′ + (1 − α) θ, with α = min(1 − 1 / (step + 1), decay)

    The first steps are averaged plainly, as in the authors' code, so that the average doesn't hang on the weights at the
    beginning. Running statistics of norms are averaged too; whole numbers are copied. The average answers in eval mode. With a
    student that draws nothing at random, neither dropout nor depth, teacher and student begin as the same function.
    """

    why_closed = "it has no network before the training begins"

    def __init__(self, decay: float = 0.999) -> None:
        """Takes the largest share of the average that a step keeps, 0 ≤ decay < 1.

        Raises:
            PenjingError: it is out of this range.
        """
        super().__init__()
        check({"decay": decay}, {"decay": DECAY})
        self.decay, self.steps = decay, 0

    def identity(self) -> str:
        """Returns a text that differs for another decay; the weights are the student's."""
        return f"Ema {self.decay}"

    def prepare(self, student: nn.Module, device: torch.device, say: Say) -> None:
        """Begins the average with the student's weights."""
        self.networks, self.steps = (frozen(student).to(device),), 0

    def answers(self, lesson: Lesson) -> Any:
        """Returns the outputs of the average."""
        return lesson.run(self.networks[0], lesson.inputs)

    def follow(self, student: nn.Module) -> None:
        """Takes the student's weights into the average.

        Raises:
            PenjingError: the student's tensors aren't those with which the average began.
        """
        averages, values = _tensors(self.networks[0]), _tensors(student)
        if averages.keys() != values.keys():
            raise _other(averages.keys() ^ values.keys())
        self.steps += 1
        kept = min(1 - 1 / (self.steps + 1), self.decay)
        with torch.no_grad():
            for name, average in averages.items():
                value = values[name]
                if average.shape != value.shape:
                    raise _other({name})
                if average.is_floating_point():
                    average.lerp_(value.to(average), 1 - kept)
                else:
                    average.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Returns the average and the number of steps that it is of."""
        return {"steps": self.steps, "average": _tensors(self.networks[0]) if self.networks else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the average.

        Raises:
            PenjingError: the state isn't that of such an average of this student.
        """
        own, stored = _tensors(self.networks[0]), state.get("average") if isinstance(state, dict) else None
        if not isinstance(stored, dict) or not isinstance(state.get("steps"), int) or stored.keys() != own.keys():
            raise PenjingError("It holds no average of this student's weights.")
        with torch.no_grad():
            for name, tensor in own.items():
                if not isinstance(stored[name], Tensor) or stored[name].shape != tensor.shape:
                    raise PenjingError(f"Its average has another '{name}'.")
                tensor.copy_(stored[name])
        self.steps = state["steps"]


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Returns a network's parameters and buffers by name, each once."""
    named = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: tensor.detach() for name, tensor in named.items()}


def _other(names: Any) -> PenjingError:
    return PenjingError(
        f"The student's tensors changed while it was trained ({sorted(names)[0]} for one), and the teacher 'ema' averages them: "
        "leave out what changes them, or take another teacher."
    )
