"""Chooses a width for every group of channels and which branches stay, exactly, under a budget that is measured on the target."""

from penjing.planning.assignment import DAMAGE
from penjing.planning.problem import Problem, Solution
from penjing.planning.program import latency_of
from penjing.planning.search import Offer, Search, structure_options
from penjing.planning.solvers._registry import solvers

ROUNDS = 5  # plans that are lowered and measured at most


@solvers.register(
    source="Shen et al., Structural Pruning via Latency-Saliency Knapsack (HALP), 2022; Sun et al., MDP: Multidimensional "
    "Vision Model Pruning with Latency Constraint, 2025"
)
def milp(problem: Problem) -> Solution:
    """Minimises the damage of widths and removed branches under the budget: an integer program over measured latencies.

    The latency of a convolution depends on the channels that stay on both of its sides. Kernels of all sizes that the network
    could get are measured on the target, once for all runs. Damage is the measured increase of the loss. The plan with the
    least damage is lowered and measured; where its latency isn't the one that the kernels promised, they are corrected by what
    was measured, and the program is solved again.

    If no plan keeps the budget, the fastest is taken; after Ctrl-C, the best one so far.

    Raises:
        KeyboardInterrupt: Ctrl-C came before anything was measured.
        PenjingError: the budget limits something that kernels have no price for, or a technique proposes options at values.
    """
    return Search(problem, "milp").solution(_solve_and_correct)


def _solve_and_correct(search: Search, offer: Offer) -> None:
    """Measures the plan with the least damage, corrects the prices, and solves again."""
    problem = search.problem
    for _ in range(ROUNDS):
        solved = [(program, found) for program in offer.programs if (found := program.solve()) is not None]
        if solved:
            program, found = min(solved, key=lambda one: one[1].totals[DAMAGE])
        else:
            problem.say("No plan is expected to keep the budget: the fastest is measured.")
            program, found = min(
                ((p, p.fastest()) for p in offer.programs), key=lambda one: one[0].latency(one[1].taken)
            )
        options = search.settled(structure_options(offer.structure.choices, found.taken, offer.damages))
        problem.say(
            f"Of {len(offer.structure.choices)} places {len(options)} change: expected increase of the loss "
            f"{found.totals[DAMAGE]:.4g} (at most {found.gap:.2%} above the least possible)."
        )
        search.explain(options, program.places(offer.structure.choices, found.taken))
        again = search.seen(options)
        mine = [one for one in search.level(options) if one.integer == program.numbers.integer]
        if not mine or again:
            return
        if not program.correct(found.taken, min(map(latency_of, mine))) or problem.left <= problem.longest:
            return
