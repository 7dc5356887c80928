"""The table of solvers."""

from collections.abc import Callable
from dataclasses import dataclass

from penjing.planning.problem import Problem, Solution
from penjing.registry import Entry, Registry

Solver = Callable[[Problem], Solution]


@dataclass(frozen=True, kw_only=True)
class SolverEntry(Entry[Solver]):
    """A registered solver: it picks a plan that keeps the budget from the options that techniques propose."""


solvers = Registry("solver", SolverEntry)


def find_solver(name: str) -> Solver:
    """Returns the solver of that name.

    Raises:
        PenjingError: no solver has that name.
    """
    return solvers[name].function
