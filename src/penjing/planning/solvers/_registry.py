"""The table of solvers."""

from collections.abc import Callable
from dataclasses import dataclass

from penjing.planning.problem import Problem, Solution
from penjing.registry import Entry, Registry

Solver = Callable[[Problem], Solution]


@dataclass(frozen=True, kw_only=True)
class SolverEntry(Entry[Solver]):
    """A registered solver: it picks, from what the techniques propose, a plan that keeps the budget."""


solvers = Registry("solver", SolverEntry)


def find_solver(name: str) -> Solver:
    """Returns the solver of that name.

    Raises:
        PenjingError: there is none.
    """
    return solvers[name].function
