"""Generations of students, each taught by the one before; every generation is a run of `recover` with its own checkpoint."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from penjing.checks import EPOCHS, PATH, SEED, Rule, a, checked, mapping, optional, whole
from penjing.data import Data
from penjing.distillation.teachers import TAUGHT_BY, Lesson, Mean, TaughtBy, teachers
from penjing.errors import PenjingError, unknown_name, with_article
from penjing.graph.doors import TRAINED
from penjing.tasks import answers_of, run_on
from penjing.training.loop import recover

SEEDS = 2**32  # seeds run from 0 to below this number
STUDENT = Rule(
    "an nn.Module whose tensors hold values, or a function from a generation's number to one",
    lambda value: (
        TRAINED.fits(value) if isinstance(value, nn.Module) else callable(value) and not isinstance(value, type)
    ),
)
ANYTHING = Rule("anything", lambda value: True)
SETTLED = ("graph", "data", "teacher", "epochs", "seed", "checkpoint")  # arguments of `recover` that generations set


@dataclass(frozen=True)
class Generations:
    """The students of `born_again`.

    Attributes:
        students: all of them, trained, in the order of their generations.
        kind: the kind of their outputs, as the task names it.
    """

    students: tuple[nn.Module, ...]
    kind: str = "auto"

    @property
    def last(self) -> nn.Module:
        """The student of the last generation."""
        return self.students[-1]

    def ensemble(self) -> "Ensemble":
        """Returns all students as one network."""
        return Ensemble(self.students, self.kind)


class Ensemble(nn.Module):
    """Several networks as one, which answers with their mean: log-probabilities, or values; see the teacher "mean"."""

    takes_mapping = True

    def __init__(self, networks: tuple[nn.Module, ...], kind: str = "auto") -> None:
        """Takes the networks, and the kind of their outputs: "classes", "values" or "auto"."""
        super().__init__()
        self.networks, self.kind = nn.ModuleList(networks), kind

    def forward(self, *inputs: Any) -> Any:
        """Returns the mean of the networks' outputs, nested as the first one's."""
        mean = Mean(*self.networks)
        mean.kind = self.kind
        return mean.answers(Lesson(inputs, None, run_on))


@teachers.register(
    source="Furlanello et al., Born-Again Neural Networks, ICML 2018, arXiv:1805.04770",
    name="born_again",
    gives="students",
    needs={"data", "training"},
)
@checked(
    student=STUDENT,
    data=a(Data, "a penjing.Data"),
    generations=whole(1, 1000),
    teacher=TAUGHT_BY,
    epochs=EPOCHS,
    seed=SEED,
    folder=optional(PATH),
    training=optional(mapping(ANYTHING, "a mapping from names of arguments of recover to their values")),
)
def born_again(
    student: nn.Module | Callable[[int], nn.Module],
    data: Data,
    generations: int = 3,
    *,
    teacher: TaughtBy = None,
    epochs: int = 5,
    seed: int = 0,
    folder: Path | str | None = None,
    training: Mapping[str, Any] | None = None,
) -> Generations:
    """Trains students one after another, each taught by the one before; the last is often better than the first teacher.

    Args:
        student: a network with which each generation begins, as a copy; or, as in the paper, a function that makes a fresh one of
            the generation's number, from 0, with weights that it draws anew.
        data: the data to train on, as in `recover`.
        generations: how many students are trained.
        teacher: who teaches the first student, as in `recover`; without one it learns from the labels alone.
        epochs: passes over the data in each generation.
        seed: seed of the first generation; the next ones have the next seeds.
        folder: where each generation keeps its checkpoint. The same call, made again after any stop, goes on from there.
        training: further arguments of `recover`, such as `{"signal": "dkd", "lr": 0.05}`.

    Returns:
        All students; `.last` is the one of the last generation, `.ensemble()` is all of them as one network. The network that
        was given stays as it was.

    Raises:
        PenjingError: what `recover` raises; an unknown argument in `training`; or the function makes no network.
        Interrupted: Ctrl-C; the checkpoints are written.
    """
    more = [name for name in inspect.signature(recover).parameters if name not in SETTLED]
    for name in training or {}:
        if name not in more:
            raise unknown_name("argument in training=", name, more)
    students: list[nn.Module] = []
    for generation in range(generations):
        checkpoint = None if folder is None else Path(folder) / f"generation-{generation}.checkpoint"
        if checkpoint is not None:
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
        students.append(
            recover(
                _fresh(student, generation), data, teacher=students[-1] if students else teacher, epochs=epochs,
                seed=(seed + generation) % SEEDS, checkpoint=checkpoint, **(training or {}),
            )
        )  # fmt: skip
    return Generations(tuple(students), answers_of(data.task))


def _fresh(student: nn.Module | Callable[[int], nn.Module], generation: int) -> nn.Module:
    if isinstance(student, nn.Module):
        return copy.deepcopy(student)
    made = student(generation)
    if not isinstance(made, nn.Module):
        raise PenjingError(
            f"student= made {with_article(type(made).__name__)} for generation {generation}; it must make an nn.Module."
        )
    return made
