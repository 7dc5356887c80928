"""Chooses a width for every group of channels and which branches stay, exactly, under a budget that is measured on the target."""

import math
from collections.abc import Mapping, Sequence

from penjing.planning.assignment import DAMAGE, Assigned, Taking
from penjing.planning.damage.in_context import in_context
from penjing.planning.joint_costs import Choice
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.problem import Problem, Solution
from penjing.planning.program import Program, latency_of
from penjing.planning.search import Offer, Search
from penjing.planning.solvers._registry import solvers

ROUNDS = 8  # plans that are lowered and measured at most
CONTEXTS = 2  # times at most that options are weighed within the plan that they make


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

    If no plan keeps the budget, the one that comes nearest is taken; after Ctrl-C, the best one so far.

    Raises:
        KeyboardInterrupt: Ctrl-C came before anything was measured.
        PenjingError: a technique proposes options at values.
    """
    return Search(problem, "milp").solution(_solve_and_correct)


def _solve_and_correct(search: Search, offer: Offer) -> None:
    """Measures the plan with the least damage, corrects the prices, and solves again."""
    problem, places = search.problem, offer.structure.choices
    program, found = _in_context(search, offer, *_solved(search, offer))
    for _ in range(ROUNDS):
        options = search.settled(offer.options(found.taken).values())
        if search.seen(options):
            return
        problem.say(
            f"Of {len(places)} places {len(options)} change: expected increase of the loss {found.totals[DAMAGE]:.4g} (at most "
            f"{found.gap:.2%} above the least possible)."
        )
        search.explain(options, program.places(places, found.taken))
        measured = search.level(options)
        refused = _refused(places, found.taken, measured)
        mine = [one for one in measured if one.integer == program.numbers.integer]
        wrong = bool(mine) and program.correct(found.taken, min(mine, key=latency_of))
        if not (wrong or refused) or search.time_is_over():
            return
        for name, option in refused:
            offer.damages[name][option] = math.inf
        offer.weigh(offer.damages)
        program, found = _solved(search, offer)


def _solved(search: Search, offer: Offer) -> tuple[Program, Assigned]:
    """Returns the choice with the least damage among those that should keep the budget; else the one that comes nearest."""
    solved = [(program, found) for program in offer.programs if (found := program.solve()) is not None]
    if solved:
        return min(solved, key=lambda one: one[1].totals[DAMAGE])
    search.problem.say("No plan is expected to keep the budget: the nearest is measured.")
    return min(((one, one.nearest()) for one in offer.programs), key=lambda one: one[0].used(one[1].taken))


def _in_context(search: Search, offer: Offer, program: Program, found: Assigned) -> tuple[Program, Assigned]:
    """Chooses again by what options do in the midst of the plan, as long as that makes the plan's own damage less.

    A plan that takes much away isn't looked at so: before training it knows little, whatever it could learn.
    """
    for _ in range(CONTEXTS):
        if not any(found.taken.values()) or search.problem.left <= 0:
            break
        if not offer.increase.tells(offer.together(found.taken)):
            break
        alone = {name: values.copy() for name, values in offer.damages.items()}
        offer.weigh(in_context(offer.structure.choices, program.assignment, found.taken, alone, offer.together))
        other, again = _solved(search, offer)
        before, after = offer.together(found.taken), offer.together(again.taken)
        if after >= before or other.used(again.taken) > max(1.0, program.used(found.taken)):
            offer.weigh(alone)
            break
        search.problem.say(
            f"Weighed within the plan, options are chosen whose loss grows by {after:.4g}, not by {before:.4g}."
        )
        program, found = other, again
    return program, found


def _refused(places: Mapping[str, Choice], taken: Taking, measured: Sequence[MeasuredPlan]) -> list[tuple[str, int]]:
    """Returns the options that were left out when a plan was measured: chains that take longer than the layers themselves."""
    kept = {
        one.place.path
        for plan in measured
        for one in plan.structure
        if one.place.kind == "weight" and "reason" not in one.found
    }
    chosen = [(name, taken[name]) for name, one in places.items() if one.place.kind == "weight" and taken[name]]
    return [(name, option) for name, option in chosen if places[name].place.path not in kept]
