"""Options that name teachers, for the commands that train."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.data import Data
    from penjing.distillation import Teacher

Teachers = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        help="a model to learn from, often the original's .penjing file; may be given many times",
    ),
]
TeacherWeights = Annotated[
    list[Path] | None,
    typer.Option(
        "--teacher-weights",
        help="weights for a teacher; of several teachers, once for each that isn't a whole network's file, in their order",
    ),
]
Join = Annotated[
    str, typer.Option(help="how several teachers become one: mean or confidence; see penjing list teachers")
]


def load_teacher(
    models: Sequence[str] | None, weights: Sequence[Path] | None, data: "Data", join: str
) -> "Teacher | None":
    """Returns the teacher that options name; None where they name none.

    Raises:
        PenjingError: a model or its weights can't be loaded, weights and models don't fit together, or the way to join them
            is unknown.
    """
    from penjing.distillation.teachers import check_joining, taught_by
    from penjing.models import WHOLE, load_model

    check_joining(join)
    without = _from_factories(models)
    if weights and len(weights) != len(without):
        raise PenjingError(
            f"--teacher-weights was given {len(weights)} times, and {len(without)} of the teachers have no weights of their own: "
            "give it once for each of these, in their order, or leave it out."
        )
    if without and not weights and (random := [model for model in without if model.startswith("zoo:")]):
        raise PenjingError(
            f"The teacher {random[0]} has random weights, from which nothing can be learned: give --teacher-weights."
        )
    waiting = iter(weights or ())
    found = [
        load_model(model, None if model.endswith(WHOLE) else next(waiting, None), data).graph()
        for model in models or ()
    ]
    return taught_by(found or None, join)


def without_weights(models: Sequence[str] | None, weights: Sequence[Path] | None) -> list[str]:
    """Returns the teachers that a factory makes and that were given no weights: theirs may be random."""
    return [] if weights else _from_factories(models)


def _from_factories(models: Sequence[str] | None) -> list[str]:
    from penjing.models import WHOLE

    return [model for model in models or () if not model.endswith(WHOLE)]
