"""Picks one option for every place, with the least damage that keeps the budgets: a multiple-choice knapsack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.errors import PenjingError
from penjing.planning.assignment import DAMAGE, Assignment, Joint, Unreachable, assign


@dataclass(frozen=True)
class Priced:
    """An option at a place, with its damage and its costs.

    Attributes:
        name: what users call the option, such as "int4".
        damage: expected increase of the loss.
        costs: how much the option takes of each budget, by the budget's name.
    """

    name: str
    damage: float
    costs: Mapping[str, float]


class OverBudget(PenjingError):
    """No choice of options keeps the budgets."""


def solve(options: Mapping[str, Sequence[Priced]], budgets: Mapping[str, float]) -> dict[str, Priced]:
    """Picks one option for each place with the least sum of damages, every sum of costs within its budget.

    minimise Σ damage(i, j)·x(i, j) subject to Σ_j x(i, j) = 1 for every place i, Σ cost(i, j)·x(i, j) ≤ budget, x ∈ {0, 1};
    solved exactly by branch and cut (HiGHS: Huangfu & Hall 2018, Parallelizing the dual revised simplex method).

    Args:
        options: the options of each place, at least one.
        budgets: upper limits by name; each option has a cost for each of them.

    Raises:
        OverBudget: no choice keeps the budgets; the error gives the least possible cost for each of them.

    Example:
        >>> few, many = Priced("int4", 0.5, {"bytes": 10}), Priced("int8", 0.1, {"bytes": 20})
        >>> [taken.name for taken in solve({"a": [few, many], "b": [few, many]}, {"bytes": 30}).values()]
        ['int4', 'int8']
    """
    joints = [
        Joint(
            (place,),
            {DAMAGE: np.array([one.damage for one in some])}
            | {name: np.array([one.costs[name] for one in some], dtype=float) for name in budgets},
        )
        for place, some in options.items()
    ]
    try:
        found = assign(Assignment({place: len(some) for place, some in options.items()}, joints), budgets, gap=0.0)
    except Unreachable as error:
        raise OverBudget(str(error)) from error
    return {place: options[place][at] for place, at in found.taken.items()}
