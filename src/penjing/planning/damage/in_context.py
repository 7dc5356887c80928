"""What an option does to a plan, in place of what it does alone: damages that are measured in the midst of the others.

Damages aren't sums: of two neighbouring branches each may go, and not both; a layer that loses half of its channels matters less
where its block's neighbours have gone. So the damages of single options choose a first plan, and the differences that each
place makes to this plan choose the next one.
"""

from collections.abc import Callable, Mapping

import numpy as np

from penjing.planning.assignment import Assignment, Taking
from penjing.planning.joint_costs import Choice
from penjing.planning.rivals import changed

FLOOR = 1e-4  # increase of the loss below which a difference is noise
MOST = 20.0  # times that a damage may grow or shrink by one difference
# A place that the plan leaves isn't looked at if a change there would do so many times the largest damage in the plan.
HOPELESS = 4.0


def in_context(
    choices: Mapping[str, Choice],
    problem: Assignment,
    taken: Taking,
    damages: Mapping[str, np.ndarray],
    increase: Callable[[Taking], float],
) -> dict[str, np.ndarray]:
    """Returns the damages of all options, each place's scaled to the difference that the place makes to a plan.

    At a place that the plan changes, this is what the plan would gain by leaving it. At others, it is what the plan would lose
    by one option more. Options at one place keep their order.

    Args:
        choices: the places.
        problem: what is implied by what.
        taken: the plan.
        damages: the damages so far.
        increase: measures the increase of the loss with a plan.
    """
    now = increase(taken)
    largest = max((values[taken[name]] for name, values in damages.items()), default=0.0)
    found = {name: values.copy() for name, values in damages.items()}
    for name, choice in choices.items():
        at = taken[name]
        if choice.inside and at == choice.gone:
            continue  # it went with its branch
        probe = at or _probe(choice, damages[name])
        if not probe or (not at and damages[name][probe] > HOPELESS * largest):
            continue
        other = changed(problem, taken, (name, 0 if at else probe))
        if other is None:
            continue
        difference = now - increase(other) if at else increase(other) - now
        for place, option in other.items():  # what goes with the place is in the difference, and counts by itself
            if place != name:
                difference += (-1 if at else 1) * float(damages[place][taken[place]] - damages[place][option])
        before = max(FLOOR, float(damages[name][probe]))
        scale = min(MOST, max(1 / MOST, max(FLOOR, difference) / before))
        own = slice(1, len(choice.options))
        found[name][own] = np.maximum(damages[name][own], FLOOR * _steps(choice)) * scale
    return found


def _steps(choice: Choice) -> np.ndarray:
    """Returns the order of the options at a place, the mildest first, as shares of 1: of equal damages the mildest is least."""
    count = len(choice.options) - 1
    return np.arange(1, count + 1) / count


def _probe(choice: Choice, damages: np.ndarray) -> int:
    """Returns the option that stands for all at an unchanged place: that in the middle of those whose damage is known."""
    known = [at for at in range(1, len(choice.options)) if np.isfinite(damages[at])]
    return known[len(known) // 2] if known else 0
