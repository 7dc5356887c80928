"""Proposes choices of which those that did little damage so far make much: a tree of Parzen estimators."""

from penjing.planning.exploration import Evaluations, Exploration, finite
from penjing.planning.problem import Problem, Solution
from penjing.planning.solvers._exploring import explored
from penjing.planning.solvers._registry import solvers
from penjing.planning.trials import check_installed, run_trials

STARTUP = 20  # choices that are drawn at random before densities are estimated


def estimated(asked: Exploration) -> Evaluations:
    """Proposes choices by Optuna's TPE, towards little damage."""
    from optuna.samplers import TPESampler

    return run_trials(
        asked,
        "tpe",
        lambda seed: TPESampler(n_startup_trials=STARTUP, multivariate=True, seed=seed),
        lambda one: (finite(one),),
    )


@solvers.register(
    source="Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011; Akiba et al., Optuna, 2019; repair: Chu & "
    "Beasley, A Genetic Algorithm for the Multidimensional Knapsack Problem, 1998",
    explore=estimated,
    package="optuna",
)
def tpe(problem: Problem) -> Solution:
    """Proposes choices that are dense among the good ones so far and rare among the others, by measured damage.

    The estimators are Optuna's, with joint densities over all places (Falkner et al., BOHB, 2018). Beyond the papers, each
    proposal is moved onto the limits by what options cost and do alone, and the estimators learn from the repaired choice; the
    repaired original is evaluated first.

    If no plan keeps the budget, the nearest is taken; after Ctrl-C, the best one so far.

    Raises:
        KeyboardInterrupt: Ctrl-C came before anything was measured.
        PenjingError: Optuna isn't installed, or a technique proposes options at values.
    """
    check_installed("optuna", "tpe")
    return explored(problem, "tpe", estimated)
