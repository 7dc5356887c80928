"""The grids that a technique proposes for each layer: what solvers that choose layer by layer have in common."""

from penjing.errors import PenjingError
from penjing.graph import Option, Place
from penjing.planning.problem import Problem
from penjing.quantization import FLOAT
from penjing.techniques import Technique


def the_technique(problem: Problem, solver: str) -> Technique:
    """Returns the one technique of a problem for a solver that chooses among the grids of layers.

    Raises:
        PenjingError: there are others, or it isn't of the second stage.
    """
    found = list(problem.techniques.values())
    if len(found) != 1 or found[0].stage != "numbers":
        raise PenjingError(
            f"The solver '{solver}' chooses a grid for each layer: give it techniques={{'quantize': {{…}}}} alone, not "
            f"{', '.join(problem.techniques) or 'none'}. 'widest_that_fits' takes several techniques."
        )
    return found[0]


def grids_proposed(problem: Problem, technique: Technique) -> dict[Place, dict[str, Option]]:
    """Returns what the technique proposes, by place and by the grid's name (with its grain, for all but "float32")."""
    found: dict[Place, dict[str, Option]] = {}
    for option in technique.propose(problem.graph, problem.data, problem.capabilities, problem.scope):
        found.setdefault(option.place, {})[grid_of(option)] = option
    return found


def grid_of(option: Option) -> str:
    """Returns the grid that an option puts a layer on, as "int8/channel"; "float32" for none."""
    name, grain = str(option.setting["weights"]), option.setting.get("grain")
    return name if name == FLOAT or grain is None else f"{name}/{grain}"
