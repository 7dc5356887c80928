"""The table of solvers."""

from collections.abc import Callable
from dataclasses import dataclass

from penjing.errors import PenjingError
from penjing.planning.exploration import Explorer
from penjing.planning.problem import Problem, Solution
from penjing.planning.trials import check_installed
from penjing.registry import Entry, Registry

Solver = Callable[[Problem], Solution]


@dataclass(frozen=True, kw_only=True)
class SolverEntry(Entry[Solver]):
    """A registered solver: it picks a plan that keeps the budget from the options that techniques propose.

    Attributes:
        in_compress: whether it takes any techniques, and returns plans whose latency was measured, as `compress` needs;
            the others choose grids for `quantize`.
        explore: the search alone, on costs and damages without a network, for solvers that propose whole choices.
        package: what must be installed beside Penjing, with the extra `search`; "" for nothing.
    """

    in_compress: bool = True
    explore: Explorer | None = None
    package: str = ""


solvers = Registry("solver", SolverEntry)


def find_solver(name: str) -> Solver:
    """Returns the solver of that name.

    Raises:
        PenjingError: no solver has that name.
    """
    return solvers[name].function


def check_in_compress(name: str) -> None:
    """Makes sure that `compress` can use the solver of that name.

    Raises:
        PenjingError: no solver has that name, it doesn't plan for `compress`, or it needs a package that isn't installed.
    """
    if not solvers[name].in_compress:
        usable = ", ".join(sorted(f"'{known}'" for known, entry in solvers.items() if entry.in_compress))
        raise PenjingError(
            f"The solver '{name}' chooses the bits of each layer for quantize(…) and makes no plan for compress: give {usable}."
        )
    if solvers[name].package:
        check_installed(solvers[name].package, name)
