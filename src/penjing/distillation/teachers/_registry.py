"""The table of teachers, and what a teacher is."""

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import nn

from penjing.checks import check, several
from penjing.graph.digest import digest
from penjing.graph.doors import TRAINED
from penjing.registry import Entry, Registry

Say = Callable[[str], None]
Run = Callable[[nn.Module, Sequence[Any]], Any]
"""Runs one of a teacher's networks on inputs and returns its outputs, without gradients unless a signal wants those of inputs."""


@dataclass(frozen=True)
class Lesson:
    """One batch, of which a student asks its teacher.

    Attributes:
        inputs: all inputs of the batch, as the task splits them off.
        targets: the labels of the batch; None without labels.
        run: runs a network of the teacher's.
    """

    inputs: Sequence[Any]
    targets: Any
    run: Run


class Teacher(ABC):
    """What a student learns from: a network's answers, those of several, or what stands for them.

    A user makes one and gives it to as many trainings as wanted. Each training works with a copy, which `begin` makes, so that
    neither the teacher nor its networks change.

    Attributes:
        networks: the networks that answer.
        kind: the kind of their outputs, as a task names it: "classes", "values", or "auto" where it names none.
        constant: whether the answer for a sample is the same each time, and hangs on its inputs alone.
        why_closed: why signals can't look inside, the reason in an error, for teachers whose `network` is None.
    """

    constant: ClassVar[bool] = False
    why_closed: ClassVar[str] = "several networks teach together, and they have no inner values in common"
    kind: str = "auto"

    def __init__(self, *networks: nn.Module) -> None:
        """Takes the networks.

        Raises:
            PenjingError: one isn't an `nn.Module` with values.
        """
        check({"networks": networks}, {"networks": several(TRAINED, "nn.Modules whose tensors hold values")})
        self.networks = networks

    @property
    def network(self) -> nn.Module | None:
        """The network into which signals may look, for inner values and parameters; None where there is no single one."""
        return self.networks[0] if len(self.networks) == 1 else None

    def identity(self) -> str:
        """Returns a text that differs for teachers that answer differently: a resumed training must have the same."""
        return " ".join([type(self).__name__, *(digest(network.state_dict()) for network in self.networks)])

    def begin(self, student: nn.Module, device: torch.device, kind: str = "auto", say: Say | None = None) -> Self:
        """Returns a copy for one training: frozen networks, in eval mode, on the device.

        Args:
            student: the network that will learn, as it is before its first step.
            device: where the networks run.
            kind: see the attribute.
            say: called with messages for the user; by default they go to the logger "penjing.distillation".

        Raises:
            PenjingError: what the teacher keeps on disk can't be used.
        """
        ready = copy.copy(self)
        ready.networks = tuple(frozen(network).to(device) for network in self.networks)
        ready.kind = kind
        ready.prepare(student, device, say or logging.getLogger("penjing.distillation").info)
        return ready

    def prepare(self, student: nn.Module, device: torch.device, say: Say) -> None:  # noqa: B027  most teachers need nothing
        """Makes what this teacher needs beside its networks; `begin` calls it on the copy."""

    @abstractmethod
    def answers(self, lesson: Lesson) -> Any:
        """Returns the outputs that the student is compared with: tensors in any nesting, structured as the student's.

        Raises:
            PenjingError: networks disagree in their outputs' shapes, or the batch hasn't what this teacher needs.
        """

    def seen(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Returns those of a batch's inputs that `network` is given."""
        return inputs

    def shown(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Returns those of a batch's inputs that the student is given."""
        return inputs

    def follow(self, student: nn.Module) -> None:  # noqa: B027  most teachers need nothing
        """Takes note of the student after one of its steps."""

    def save(self) -> None:  # noqa: B027  most teachers need nothing
        """Writes what the teacher keeps on disk; it is called before each checkpoint is written, and after each epoch.

        Raises:
            PenjingError: it can't be written.
        """

    def state_dict(self) -> dict[str, Any]:
        """Returns what changes while the student trains: tensors and plain values, which checkpoints hold."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  most teachers need nothing
        """Restores what `state_dict` returned.

        Raises:
            PenjingError: the state is that of another teacher.
        """


def frozen(network: nn.Module) -> nn.Module:
    """Returns a copy of a network in eval mode whose parameters take no gradient."""
    with torch.no_grad():  # otherwise the copies of a torch.jit module's parameters would have a gradient function
        copied = copy.deepcopy(network).eval()
    for parameter in copied.parameters():  # one by one, since a torch.jit module has no `requires_grad_`
        parameter.requires_grad_(False)
    return copied


@dataclass(frozen=True, kw_only=True)
class TeacherEntry(Entry[Callable[..., Any]]):
    """A registered teacher.

    Attributes:
        gives: what calling it returns. "answers": a `Teacher`, which `recover(teacher=…)` takes; it is called with the networks,
            and all further arguments have defaults. "data": a `Data` to distil from, of one network. "students": trained
            networks, of a student and its data.
        networks: of how many networks it is made: "one", "several" (one is allowed too), or "none".
    """

    gives: Literal["answers", "data", "students"] = "answers"
    networks: Literal["one", "several", "none"] = "one"


teachers = Registry("teacher", TeacherEntry)
"""Each is a class or a function in a file of its own."""
