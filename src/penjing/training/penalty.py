"""The penalty of a run: a function of the user's, or a name in the table of penalties with its weight."""

from collections.abc import Callable

from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.penalties import find

Penalty = Callable[[nn.Module, float], Tensor | None]
"""From the student and the share of the training that is done, 0 to 1, to a term of the next step's loss."""


def check_penalty(name: str | None, weight: float | None) -> None:
    """Makes sure that a penalty's name is known, and that there is one where there is a weight.

    Raises:
        PenjingError: the name is unknown, or the weight stands without a name.
    """
    if name is not None:
        find(name)
    elif weight is not None:
        raise PenjingError(
            f"penalty_weight={weight:g} is the factor of a penalty that penalty= names; a function of yours returns its term as "
            "it counts."
        )


def penalty_of(graph: nn.Module, penalty: str | Penalty | None, weight: float | None) -> Penalty | None:
    """Returns the term of the loss that `recover` adds: the user's function as it is, or a named penalty times its weight.

    Raises:
        PenjingError: the graph has nothing that the named penalty shapes.
    """
    if not isinstance(penalty, str):
        return penalty
    chosen = find(penalty)
    value, factor = chosen.of(graph), chosen.entry.weight if weight is None else weight

    def term(_graph: nn.Module, _progress: float) -> Tensor:
        return factor * value()

    return term
