"""Evaluates choices that are drawn at random: what every other search must beat."""

import numpy as np

from penjing.planning.exploration import Evaluations, Exploration
from penjing.planning.problem import Problem, Solution
from penjing.planning.solvers._exploring import explored
from penjing.planning.solvers._registry import solvers

DRAWS = 5  # times the evaluations that choices are drawn; of a small problem all were seen long before


def drawn_choices(asked: Exploration) -> Evaluations:
    """Draws each place's option uniformly."""
    found, generator = Evaluations(asked), np.random.default_rng(asked.seed)
    for number in range(DRAWS * asked.evaluations):
        if found.ended:
            break
        drawn = {place: int(generator.integers(len(some))) for place, some in asked.open.items()}
        found.of(asked.starts[number] if number < len(asked.starts) else asked.chosen(drawn))
    return found


@solvers.register(
    source="Bergstra & Bengio, Random Search for Hyper-Parameter Optimization, 2012; repair: Chu & Beasley, A Genetic Algorithm "
    "for the Multidimensional Knapsack Problem, 1998",
    explore=drawn_choices,
)
def random(problem: Problem) -> Solution:
    """Draws choices of options at random, each repaired to keep the limits, and takes the one with the least measured damage.

    What it finds tells how much of another search's result is the repair's, which knows what options cost and do alone.

    If no plan keeps the budget, the nearest is taken; after Ctrl-C, the best one so far.

    Raises:
        KeyboardInterrupt: Ctrl-C came before anything was measured.
        PenjingError: a technique proposes options at values.
    """
    return explored(problem, "random", drawn_choices)
