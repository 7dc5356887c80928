"""What to do where, so that the budget is kept: techniques propose options, solvers measure and choose, `apply` does it."""

from penjing.planning.bits import Bits, choose_bits
from penjing.planning.carrying_out import apply, carried_out, of_stage
from penjing.planning.control import hold_metric
from penjing.planning.knapsack import OverBudget, Priced, solve
from penjing.planning.solvers import Candidate, Deployment, Problem, Solution, find_solver, read_journal
from penjing.planning.verb import plan
from penjing.pruning import technique as _pruning  # noqa: F401  registers
from penjing.quantization import technique as _quantization  # noqa: F401  registers
from penjing.techniques import Technique, techniques

__all__ = [
    "Bits",
    "Candidate",
    "Deployment",
    "OverBudget",
    "Priced",
    "Problem",
    "Solution",
    "Technique",
    "apply",
    "carried_out",
    "choose_bits",
    "find_solver",
    "hold_metric",
    "of_stage",
    "plan",
    "read_journal",
    "solve",
    "techniques",
]
