"""Plans what to do where, so that a budget is kept: techniques propose options, solvers choose, `apply` carries them out."""

from penjing.factorization import technique as _factorization  # noqa: F401  registers
from penjing.merging import technique as _merging  # noqa: F401  registers
from penjing.planning.bit_costs import grids_of
from penjing.planning.candidates import better
from penjing.planning.carrying_out import apply, carried_out, of_stage
from penjing.planning.journal import by_level, corrected, meeting, read_journal, write_journal
from penjing.planning.knapsack import OverBudget, Priced, solve
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.problem import Anchor, Deployment, Held, Problem, Solution
from penjing.planning.solvers import check_in_compress, find_solver
from penjing.planning.verb import plan
from penjing.pruning import technique as _pruning  # noqa: F401  registers
from penjing.quantization import technique as _quantization  # noqa: F401  registers
from penjing.techniques import Technique, techniques

__all__ = [
    "Anchor",
    "Deployment",
    "Held",
    "MeasuredPlan",
    "OverBudget",
    "Priced",
    "Problem",
    "Solution",
    "Technique",
    "apply",
    "better",
    "by_level",
    "carried_out",
    "check_in_compress",
    "corrected",
    "find_solver",
    "grids_of",
    "meeting",
    "of_stage",
    "plan",
    "read_journal",
    "solve",
    "techniques",
    "write_journal",
]
