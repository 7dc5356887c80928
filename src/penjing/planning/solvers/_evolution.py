"""Lets choices evolve: the better ones are crossed and mutated, generation by generation."""

from penjing.planning.exploration import Evaluations, Exploration, finite
from penjing.planning.problem import Problem, Solution
from penjing.planning.solvers._exploring import explored
from penjing.planning.solvers._registry import solvers
from penjing.planning.trials import check_installed, run_trials

POPULATION = 20  # choices of a generation: ten generations of the usual number of evaluations


def evolved(asked: Exploration) -> Evaluations:
    """Evolves choices by Optuna's NSGA-II, towards little damage and a small share of the limits."""
    from optuna.samplers import NSGAIISampler

    return run_trials(
        asked,
        "evolution",
        lambda seed: NSGAIISampler(population_size=POPULATION, seed=seed),
        lambda one: (finite(one), asked.used(one.taken)),
        objectives=2,
    )


@solvers.register(
    source="Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002; repair: Chu & Beasley, A Genetic "
    "Algorithm for the Multidimensional Knapsack Problem, 1998",
    explore=evolved,
    package="optuna",
)
def evolution(problem: Problem) -> Solution:
    """Evolves choices of options by NSGA-II towards little measured damage, each repaired to keep the limits.

    Sorting by domination, crowding, crossover and mutation are Optuna's. Beyond the paper, each child is moved onto the limits by
    what options cost and do alone, and is bred on as repaired; the first generation holds the repaired original. So that
    generation knows what a greedy walk knows, and evolution adds what the network loses with all options together.

    If no plan keeps the budget, the nearest is taken; after Ctrl-C, the best one so far.

    Raises:
        KeyboardInterrupt: Ctrl-C came before anything was measured.
        PenjingError: Optuna isn't installed, or a technique proposes options at values.
    """
    check_installed("optuna", "evolution")
    return explored(problem, "evolution", evolved)
