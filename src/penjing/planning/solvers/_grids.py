"""The grids that a technique proposes for each layer, for all solvers that choose a grid layer by layer."""

from penjing.errors import PenjingError
from penjing.graph import Option, Place
from penjing.planning.problem import Problem
from penjing.quantization import NothingToQuantize, grid_of
from penjing.techniques import Technique


def only_technique(problem: Problem, solver: str) -> Technique:
    """Returns the only technique of a problem, for a solver that chooses among the grids of layers.

    Raises:
        PenjingError: the problem has several techniques, or one that isn't of the stage "numbers".
    """
    found = list(problem.techniques.values())
    if len(found) != 1 or found[0].stage != "numbers":
        raise PenjingError(
            f"The solver '{solver}' chooses a grid for each layer: give it techniques={{'quantize': {{…}}}} alone, not "
            f"{', '.join(problem.techniques) or 'none'}. 'widest_that_fits' takes several techniques."
        )
    return found[0]


def grids_proposed(problem: Problem, technique: Technique) -> dict[Place, dict[str, Option]]:
    """Returns the options that the technique proposes, by place and by the grid's name (with its grain, if it has one)."""
    found: dict[Place, dict[str, Option]] = {}
    for option in technique.propose(problem.graph, problem.data, problem.capabilities, problem.scope):
        found.setdefault(option.place, {})[grid_of(option)] = option
    return found


def nothing_proposed(problem: Problem) -> NothingToQuantize:
    """Returns the error for a problem for which the technique proposes no grid at all."""
    return NothingToQuantize(
        f"No grid can be chosen for any layer of {problem.graph.name}: {problem.deployment.target} computes nothing in integers, "
        "there is no calibration data, or all layers are excluded. Give data.calibration and another target, or weights alone "
        "(activations=None)."
    )
