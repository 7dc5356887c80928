"""Solvers: from what techniques propose to a plan that keeps the budget. One file each."""

from penjing.planning.solvers import _widest_that_fits  # noqa: F401  registers
from penjing.planning.solvers._candidate import Candidate
from penjing.planning.solvers._registry import Deployment, Problem, Solution, Solver, find_solver, solvers
from penjing.planning.solvers._widest_that_fits import read_journal

__all__ = ["Candidate", "Deployment", "Problem", "Solution", "Solver", "find_solver", "read_journal", "solvers"]
