"""What solvers share that propose whole choices: they explore at the prices, measure the best plan, and explore again."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from penjing.graph import Option
from penjing.planning.assignment import DAMAGE, Taking
from penjing.planning.candidates import Options
from penjing.planning.damage.loss_increase import LEAST
from penjing.planning.exploration import EVALUATIONS, Evaluated, Exploration, Explorer
from penjing.planning.problem import Problem, Solution
from penjing.planning.program import Program, latency_of
from penjing.planning.repair import Repair
from penjing.planning.search import Offer, Search

ROUNDS = 6  # plans that are lowered and measured at most
AGAIN = 0.25  # share of the evaluations that each exploration after the first has, at corrected prices
STARTS = 10  # of the best choices so far, with which a further exploration begins
SHARE = 0.5  # share of the time until the deadline that one exploration may take
STORAGE = "search.sqlite"  # the file of trials, beside the journal


def explored(problem: Problem, solver: str, explore: Explorer) -> Solution:
    """Returns the best of the plans that a search comes to.

    The search evaluates a choice by the loss of the network that carries it out. Where so much must go that the loss nears chance
    level, which tells nothing of what training brings back, it evaluates by the sum of what options do alone. The best choice is
    lowered and measured, prices are corrected, and a shorter search begins with the best choices so far.

    Args:
        problem: the problem.
        solver: the solver's name.
        explore: the search.
    """

    def choose(search: Search, offer: Offer) -> None:
        first, whole = _nearest(offer), dict.fromkeys(offer.structure.choices, 0)
        damage = _Damage(offer, Repair(first.assignment, first.limits())(whole))
        starts: list[Taking] = [whole]
        for number in range(ROUNDS):
            program = _nearest(offer)
            evaluations = int(AGAIN * EVALUATIONS) if number else EVALUATIONS
            asked = _asked(search, program, damage, tuple(starts), evaluations)
            found = explore(replace(asked, storage=_storage(problem)))
            ranked = sorted(found.all.values(), key=lambda one: one.rank)
            starts = [whole, *(one.taken for one in ranked[:STARTS])]
            if asked.over() and problem.left <= 0:
                search.short = True
            one = ranked[0]
            options = _settled(search, offer, one)
            if search.seen(options):
                return
            problem.say(
                f"Of {len(one.taken)} places {len(options)} change, the best of {len(found.all)} choices that were evaluated: "
                f"with all of them the loss increases by {one.damage:.4g}, {damage.told}."
            )
            search.explain(options, program.places(offer.structure.choices, one.taken))
            measured = search.level(options)
            mine = [plan for plan in measured if plan.integer == program.numbers.integer]
            wrong = bool(mine) and program.correct(one.taken, min(mine, key=latency_of))
            if not wrong or search.time_is_over():
                return

    return Search(problem, solver).solution(choose)


class _Damage:
    """The damage of a choice: measured with all options together, or the sum of what they do alone."""

    def __init__(self, offer: Offer, first: Taking) -> None:
        """Decides by a first choice how all are evaluated, so that they compare."""
        self._offer, self._together = offer, offer.increase.tells(offer.together(first))
        self.known: dict[tuple[int, ...], float] = {}

    @property
    def told(self) -> str:
        """How the damage is known, in words."""
        return "as measured" if self._together else "as the sum of what each does alone"

    def __call__(self, taken: Taking) -> float:
        """Returns the damage."""
        offer, key = self._offer, tuple(taken.values())
        if key not in self.known:
            self.known[key] = offer.together(taken) if self._together else self._alone(taken)
        return self.known[key]

    def _alone(self, taken: Taking) -> float:
        return float(sum(self._offer.damages[name][option] for name, option in taken.items()))


def _asked(
    search: Search, program: Program, damage: _Damage, starts: tuple[Taking, ...], evaluations: int
) -> Exploration:
    """Returns the exploration at the prices as they are corrected now."""
    problem = search.problem
    reserved = (1 - SHARE) * problem.left if problem.deadline is not None else 0.0
    return Exploration(
        program.assignment, program.limits(), damage, evaluations, problem.seed, starts, problem.graph.name,
        over=lambda: problem.left <= reserved,
    )  # fmt: skip


def _storage(problem: Problem) -> Path | None:
    return None if problem.journal is None else problem.journal.with_name(STORAGE)


def _nearest(offer: Offer) -> Program:
    """Returns the program of the numbers in which the unchanged network passes the limits least."""
    whole = dict.fromkeys(offer.structure.choices, 0)
    return min(offer.programs, key=lambda one: one.used(whole))


def _settled(search: Search, offer: Offer, one: Evaluated) -> Options:
    """Returns a choice's options as they are carried out, each with its share of the choice's damage."""
    options = offer.options(one.taken)
    shares = _shares(options, one.damage)
    return search.settled([
        replace(option, found={**option.found, DAMAGE: shares[name]}) for name, option in options.items()
    ])  # fmt: skip


def _shares(options: Mapping[str, Option], damage: float) -> dict[str, float]:
    """Returns a damage divided among options in the ratio of what each does alone."""
    alone = {name: max(LEAST, float(option.found[DAMAGE])) for name, option in options.items()}
    return {name: damage * one / sum(alone.values()) for name, one in alone.items()}
