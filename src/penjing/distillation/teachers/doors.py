"""What verbs ask of a teacher that they are given: a network, several, or a `Teacher`."""

from collections.abc import Sequence

from torch import nn

from penjing.checks import Rule, optional
from penjing.distillation.teachers._one import One
from penjing.distillation.teachers._registry import Teacher, teachers
from penjing.errors import unknown_name
from penjing.graph.doors import TRAINED

TaughtBy = nn.Module | Sequence[nn.Module] | Teacher | None


def _fits(value: object) -> bool:
    networks = value if isinstance(value, list | tuple) else [value]
    return isinstance(value, Teacher) or (bool(networks) and all(map(TRAINED.fits, networks)))


TAUGHT_BY = optional(
    Rule(
        "an nn.Module whose tensors hold values (not on 'meta'), several of them, or a penjing.distillation.Teacher",
        _fits,
    )
)


def joining() -> list[str]:
    """Returns the names of the teachers that join several networks."""
    return [name for name, entry in teachers.items() if entry.gives == "answers" and entry.networks == "several"]


def check_joining(name: str) -> None:
    """Makes sure that a way to join several teachers is known.

    Raises:
        PenjingError: it isn't; the message names the nearest.
    """
    if name not in joining():
        raise unknown_name("way to join teachers", name, joining())


def taught_by(given: TaughtBy, join: str = "mean") -> Teacher | None:
    """Returns the teacher that a user means: one network as it is, several joined; None for None.

    Args:
        given: what `TAUGHT_BY` allows.
        join: how several become one, a name of `joining()`.

    Raises:
        PenjingError: there is no such way to join them.
    """
    check_joining(join)
    if given is None or isinstance(given, Teacher):
        return given
    networks = [given] if isinstance(given, nn.Module) else list(given)
    return One(*networks) if len(networks) == 1 else teachers[join].function(*networks)
