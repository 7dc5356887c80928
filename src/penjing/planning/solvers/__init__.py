"""Solvers, one per file: each chooses, from the options that techniques propose, a plan that keeps the budget."""

from penjing.planning.solvers import (  # noqa: F401  registers
    _amc,
    _evolution,
    _greedy,
    _hold_metric,
    _least_noise,
    _milp,
    _random,
    _tpe,
    _widest_that_fits,
)
from penjing.planning.solvers._registry import Solver, check_in_compress, find_solver, solvers

__all__ = ["Solver", "check_in_compress", "find_solver", "solvers"]
