"""The search for a plan, as rows of a report: what was measured, in order, and which limit held each plan back."""

import math
from collections.abc import Mapping
from typing import Any

from penjing.budget import Budget
from penjing.planning import MeasuredPlan, Solution
from penjing.run.verification import READ


def candidate_rows(budget: Budget, solution: Solution, baseline: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each plan that was measured, in order.

    Beside its measurements, a row has `used`, the share of each limit that the plan uses (null where that isn't known), `binds`,
    the limit of which it uses the largest share, and `taken`, whether it is the plan that was taken.

    Args:
        budget: the limits.
        solution: the plans that were measured.
        baseline: the original's measurements, as the report tells them.
    """
    rows = []
    for candidate in solution.measured:
        used = budget.used(compared_with(budget, candidate, baseline), candidate.costs)
        known = {name: share if share < math.inf else None for name, share in used.items()}
        binds = max(used, key=lambda name: used[name], default=None)
        rows.append({**candidate.as_row(), "used": known, "binds": binds, "taken": candidate == solution.taken})
    return rows


def compared_with(budget: Budget, candidate: MeasuredPlan, baseline: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns how much the original has of each quantity that a budget limits, by the limit's name; None where unknown."""
    before: dict[str, float | None] = {name: READ[name](baseline) for name in budget.limits()}
    # A candidate's latency is compared with that of the original in the same turns, since a machine's speed changes.
    return before | ({"latency": candidate.original_ms} if "latency" in before else {})
