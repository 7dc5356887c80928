"""Takes one option after another, the one with the least damage for what it saves, until the measured plan keeps the budget."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penjing.errors import PenjingError
from penjing.planning.assignment import DAMAGE, Taking, assign
from penjing.planning.candidates import Options
from penjing.planning.damage.loss_increase import LEAST
from penjing.planning.joint_costs import UNKNOWN
from penjing.planning.problem import Problem, Solution
from penjing.planning.program import Program, latency_of
from penjing.planning.rivals import changed
from penjing.planning.search import Offer, Search
from penjing.planning.solvers._registry import solvers

TRIED = 4  # options of a step, the best by their estimates, whose damage is measured beside what was taken before
EXACT_SECONDS = 10.0  # for the exact solution with which the result is compared in the log
SLACK = 1e-6  # share by which that solution may pass the result's costs, for an integer program's tolerances


@solvers.register(
    source="Yang et al., NetAdapt, 2018; estimates are kept from step to step as by Minoux, Accelerated greedy algorithms, 1978"
)
def greedy(problem: Problem) -> Solution:
    """Takes step by step the option with the least damage for the latency it saves, as measured with what was taken before.

    At each place the mildest option that saves anything is considered: the next narrower width that is faster, the branch that
    could go, the layer that could be replaced. The four that promise most by estimates are carried out on top of what was taken
    before, and the increase of the loss is measured; the one with the least increase per predicted millisecond saved is taken.
    An estimate is the damage of the option alone until it has been measured in such company. Where so much is taken that the loss
    nears chance level, options are taken by what they do alone.

    Once the plan is expected to keep the budget, it is lowered and measured, and the prices are corrected. Then further steps are
    taken, or the last ones are taken back, until no plan on the path is better. Where a budget limits other costs
    too, what is saved of them counts as far as their limits are passed.

    If no plan keeps the budget, the nearest is taken; after Ctrl-C, the best one so far.

    Raises:
        KeyboardInterrupt: Ctrl-C came before anything was measured.
        PenjingError: a technique proposes options at values.
    """
    return Search(problem, "greedy").solution(_walk)


@dataclass(frozen=True)
class _Point:
    """A point of the path.

    Attributes:
        taken: the number of the option at each place.
        damage: the increase of the loss with all of them.
        shares: the part of the damage that came with each place's option; together they are the damage.
        steps: the step in which each place's option was taken.
    """

    taken: Taking
    damage: float = 0.0
    shares: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Move:
    """An option that could be taken next: its place and number, all that is taken then, and how much of the excess goes."""

    place: str
    option: int
    taken: Taking
    saved: float


def _walk(search: Search, offer: Offer) -> None:
    """Measures points of the path between the last one that was too slow and the first one that wasn't."""
    path, problem = _Path(search, offer), search.problem
    missing, keeping = 0, math.inf  # the unchanged network, which begins the path, was measured
    while (at := path.promising(missing, keeping)) is not None:
        if search.time_is_over():
            break
        point = path.points[at]
        options = path.options(point)
        problem.say(
            f"Of {len(point.taken)} places {len(options)} change, in {at} steps: with all of them the loss increases by "
            f"{point.damage:.4g}."
        )
        search.explain(options, path.program.places(offer.structure.choices, point.taken))
        found = search.level(options)
        mine = [one for one in found if one.integer == path.program.numbers.integer]
        better = bool(mine) and path.program.correct(point.taken, min(mine, key=latency_of))
        if any(one.meets for one in found):
            keeping = at
            if not better:
                break
        else:
            missing = at
    _tell_distance(problem, path.program, path.points[-1 if keeping == math.inf else int(keeping)])


def _tell_distance(problem: Problem, program: Program, point: _Point) -> None:
    """Says how far the sum of damages is from the least possible at the same costs."""
    if problem.left <= EXACT_SECONDS:
        return
    sums = program.assignment
    costs = {name: (1 + SLACK) * sums.total(name, point.taken) for name in program.limits()}
    try:
        best = sums.total(DAMAGE, assign(sums, costs, seconds=EXACT_SECONDS).taken)
    except PenjingError as error:
        problem.say(f"The integer program to compare with wasn't solved: {error}")
        return
    own = sums.total(DAMAGE, point.taken)
    above = f"{own / best - 1:.1%} more than" if best else "against"
    problem.say(
        f"Each option alone, the damages of what is taken sum up to {own:.4g}: {above} the {best:.4g} of the integer program at "
        "the same costs."
    )


class _Path:
    """The points from the unchanged network on, each one option further than the one before.

    Attributes:
        program: prices in the numbers in which the unchanged network passes the budget least.
        points: the points so far.
    """

    def __init__(self, search: Search, offer: Offer) -> None:
        self._search, self._offer = search, offer
        whole = _Point(dict.fromkeys(offer.structure.choices, 0))
        self.program = min(offer.programs, key=lambda one: _excess(one, whole.taken))
        self.points = [whole]
        # Increases of the loss as they were last measured, by place, and option before and after.
        self._learnt: dict[tuple[str, int, int], float] = {}
        self._ended = False

    def promising(self, missing: int, keeping: float) -> int | None:
        """Returns the first point between two others that is expected to keep the budget; the path goes on where it must.

        Where none is expected to, it is the last one, beyond which there is nothing to take; None if there is no point between.
        """
        at = missing + 1
        while at < keeping:
            if at == len(self.points) and not self._step():
                return at - 1 if at - 1 > missing else None
            if not _excess(self.program, self.points[at].taken):
                return at
            at += 1
        return None

    def options(self, point: _Point) -> Options:
        """Returns the options of a point as they are carried out, each with its part of the damage and its step."""
        return self._search.settled([
            replace(option, found={**option.found, DAMAGE: point.shares[name], "step": point.steps[name]})
            for name, option in self._offer.options(point.taken).items()
        ])  # fmt: skip

    def _step(self) -> bool:
        """Takes the best option next; tells whether there was one, and time to find it."""
        if self._ended:
            return False
        search, now, problem = self._search, self.points[-1], self._search.problem
        moves = sorted(self._moves(now), key=lambda move: self._estimate(now, move) / move.saved)
        if moves and not self._offer.increase.tells(now.damage):
            self._take(now, moves[0], self._estimate(now, moves[0]), 0)
            return True
        tried: list[tuple[float, _Move]] = []
        for move in moves[:TRIED]:
            if problem.left <= 0:
                search.short = True
                break
            more = max(LEAST, self._offer.together(move.taken) - now.damage)
            self._learnt[move.place, now.taken[move.place], move.option] = more
            if math.isfinite(more):
                tried.append((more, move))
        if not tried:
            self._ended = True
            return False
        more, best = min(tried, key=lambda one: one[0] / one[1].saved)
        self._take(now, best, more, len(tried))
        return True

    def _take(self, now: _Point, move: _Move, more: float, tried: int) -> None:
        """Adds a point, for which `tried` options were carried out; none where the choice is by what each does alone."""
        number, damage = len(self.points), now.damage + more
        kept = self._offer.options(move.taken).keys() - {move.place}
        shares = {name: share for name, share in now.shares.items() if name in kept}
        # What came with places that go with this one counts as this one's.
        shares[move.place] = damage - math.fsum(shares.values())
        steps = {name: step for name, step in now.steps.items() if name in kept} | {move.place: number}
        self.points.append(_Point(move.taken, damage, shares, steps))
        option = self._offer.options(move.taken)[move.place]
        why = f"the least for its savings of {tried} options tried" if tried else "by what it does alone"
        saved = self.program.latency(now.taken) - self.program.latency(move.taken)
        self._search.problem.say(
            f"Step {number}: {option.place}, {option.technique} to {option.after}: {saved:.1%} of the original's latency less "
            f"expected; the loss increases by {more:.4g} more, {why}."
        )

    def _estimate(self, now: _Point, move: _Move) -> float:
        """Returns the increase of the loss that a move is expected to bring: as last measured in company, else alone.

        Where the loss in company tells nothing any more, it is that of the option alone.
        """
        before = now.taken[move.place]
        damages = self._offer.damages[move.place]
        alone = max(LEAST, float(damages[move.option] - damages[before]))
        if not self._offer.increase.tells(now.damage):
            return alone
        return self._learnt.get((move.place, before, move.option), alone)

    def _moves(self, now: _Point) -> Iterator[_Move]:
        """Yields for each place the mildest option that is stronger than the present one and saves anything."""
        excess = _excess(self.program, now.taken)
        for name in self._offer.structure.choices:
            for option in self._stronger(name, now.taken[name]):
                taken = self._with(now.taken, name, option)
                if taken is None or self.program.assignment.total(UNKNOWN, taken):
                    continue
                saved = excess - _excess(self.program, taken)
                if saved > 0:
                    yield _Move(name, option, taken, saved)
                    break

    def _stronger(self, name: str, present: int) -> Sequence[int]:
        """Returns the options of a place with more damage than the present one, the mildest first."""
        choice, damages = self._offer.structure.choices[name], self._offer.damages[name]
        if present == choice.gone:
            return ()
        there = [at for at in range(1, len(choice.options)) if math.isfinite(damages[at])]
        order = sorted(there, key=lambda at: (damages[at], at))
        return [at for at in order if (damages[at], at) > (damages[present], present)]

    def _with(self, taken: Taking, place: str, option: int) -> Taking | None:
        """Returns what is taken with one option more, and with all that goes with it; None if another option excludes it.

        Only a branch that goes takes other options back: those of layers inside of it.
        """
        found = changed(self.program.assignment, taken, (place, option))
        if found is None or option == self._offer.structure.choices[place].gone:
            return found
        return None if any(before and not found[name] for name, before in taken.items()) else found


def _excess(program: Program, taken: Taking) -> float:
    """Returns how far a choice is expected to pass all limits together, each as a share of the unchanged network's costs."""
    whole = dict.fromkeys(taken, 0)
    found = 0.0
    for name, limit in program.limits().items():
        if name != UNKNOWN:
            over = program.assignment.total(name, taken) - limit
            found += max(0.0, over) / (program.assignment.total(name, whole) or 1.0)
    return found
