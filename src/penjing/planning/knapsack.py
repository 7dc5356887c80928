"""Picks one option for every place, with the least damage that keeps the budgets: a multiple-choice knapsack."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.errors import PenjingError

# HiGHS takes a solution for the best within 1e-6 of the objective, and for feasible within 1e-6 of a limit. Damages are scaled
# so that the first tolerance is too small to matter. For the second, limits are tightened by as much as a solution passes them,
# and the problem is solved again.
SCALE = 1e6  # the largest damage, as HiGHS sees it
ROUNDS = 60  # times at most that the problem is solved under tightened limits


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
    names = [place for place, some in options.items() for _ in some]
    flat = [option for some in options.values() for option in some]
    if not flat:
        return {}
    least = {name: sum(min(o.costs[name] for o in some) for some in options.values()) for name in budgets}
    limits, tightened = dict(budgets), 1.0
    for _ in range(ROUNDS):
        chosen = _solved(names, flat, limits) if all(least[name] <= limits[name] for name in limits) else None
        if chosen is None:
            break
        passed = {name: math.fsum(o.costs[name] for o in chosen.values()) - budgets[name] for name in budgets}
        if all(excess <= 0 for excess in passed.values()):
            return chosen
        limits = {name: limits[name] - tightened * max(0.0, passed[name]) for name in limits}
        tightened *= 2
    for name in budgets:  # tightened limits may exclude the choice with the least cost of one budget
        chosen = {place: min(some, key=lambda option: option.costs[name]) for place, some in options.items()}
        if all(math.fsum(o.costs[other] for o in chosen.values()) <= budgets[other] for other in budgets):
            return chosen
    found = ", ".join(f"{least[name]:.6g} {name} of {budgets[name]:.6g}" for name in budgets)
    together = " together" if all(least[name] <= budgets[name] for name in budgets) else ""
    raise OverBudget(f"No choice keeps the budgets{together}; the least possible: {found}.")


def _solved(names: Sequence[str], flat: Sequence[Priced], limits: Mapping[str, float]) -> dict[str, Priced] | None:
    """Returns the best choice under these limits; None if no choice keeps them."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # takes as long to import as everything else together
    from scipy.sparse import csr_array

    places = {place: row for row, place in enumerate(dict.fromkeys(names))}
    rows = np.array([places[place] for place in names])
    once = csr_array((np.ones(len(flat)), (rows, np.arange(len(flat)))), shape=(len(places), len(flat)))
    constraints = [LinearConstraint(once, 1, 1)]
    for name, limit in limits.items():
        costs = np.array([option.costs[name] for option in flat], dtype=float)
        unit = float(np.abs(costs).max()) or 1.0
        constraints.append(LinearConstraint(costs[None] / unit, -np.inf, limit / unit))
    damages = np.array([option.damage for option in flat])
    worst = float(np.abs(damages).max()) or 1.0
    result = milp(
        damages * (SCALE / worst), constraints=constraints, integrality=np.ones(len(flat)), bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )  # fmt: skip
    if result.status == 2:
        return None
    if result.x is None:
        raise PenjingError(f"The solver stopped without an answer: {result.message}")
    return {names[at]: flat[at] for at in map(int, np.flatnonzero(result.x > 0.5))}
