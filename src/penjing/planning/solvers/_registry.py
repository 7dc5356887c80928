"""The table of solvers."""

from collections.abc import Callable

from penjing.planning.problem import Problem, Solution
from penjing.registry import Registry

Solver = Callable[[Problem], Solution]

solvers: Registry[Solver] = Registry("solver")
"""Each picks, from what the techniques propose, a plan that keeps the budget."""


def find_solver(name: str) -> Solver:
    """Returns the solver of that name.

    Raises:
        PenjingError: there is none.
    """
    return solvers[name].function
