"""A search for a plan that is chosen place by place: what is offered, what it costs, and what was measured so far."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from penjing.errors import PenjingError
from penjing.files import cache_folder
from penjing.graph import Option
from penjing.lines import Lasting
from penjing.planning.assignment import DAMAGE, Taking
from penjing.planning.candidates import (
    Options,
    drafted,
    excess,
    gains_by_mixing,
    in_words,
    measure_level,
    original_of,
    preferred,
    tell_if_all_in_float,
)
from penjing.planning.damage import LossIncrease
from penjing.planning.joint_costs import Replacement, Structure
from penjing.planning.journal import Journal, key_of, known, write_journal
from penjing.planning.latency import LatencyTable, kernels_of
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.place_choice import PlaceChoice
from penjing.planning.problem import Problem, Solution
from penjing.planning.program import Program, numbers_of
from penjing.techniques import Technique

ORDER = ("branch", "group", "weight")  # of places, as their options are carried out
TABLE = "latency.sqlite"  # the table of all runs, in the folder of what is kept between them
TABLE_SHARE = 0.5  # share of the time until the deadline that kernels may be measured


@dataclass(frozen=True, eq=False)
class Offer:
    """What a solver chooses from.

    Attributes:
        structure: the places with their options, and what goes with what.
        damages: the damage of each option alone, by the place's name; infinite for options that there was no time to measure,
            or that were refused.
        techniques: the techniques of the options, by name.
        increase: measures the damage of options.
        programs: what choices cost, one program for each kind of numbers that the unchanged network was measured in.
    """

    structure: Structure
    damages: dict[str, np.ndarray]
    techniques: Mapping[str, Technique]
    increase: LossIncrease
    programs: Sequence[Program]

    def options(self, taken: Taking) -> dict[str, Option]:
        """Returns the options that are taken, by place, each with its damage; a place that goes with a branch has none."""
        found = {}
        for name, choice in self.structure.choices.items():
            if (option := choice.option(taken[name])) is not None:
                found[name] = replace(option, found={**option.found, DAMAGE: float(self.damages[name][taken[name]])})
        return found

    def together(self, taken: Taking) -> float:
        """Returns how much the loss grows with all options that are taken; remembered with the data."""
        return self.increase.together(self.techniques, list(self.options(taken).values()))

    def weigh(self, damages: Mapping[str, np.ndarray]) -> None:
        """Takes these damages for those of the options."""
        self.damages.update(damages)
        for program in self.programs:
            program.weigh(self.damages)


class Search:
    """The plans that a solver measured, level by level, which a journal keeps across a kill.

    Attributes:
        problem: the problem.
        measured: all candidates, in the order in which they were measured.
        short: whether time ran out with something left to try.
        unseen: options that there was no time to weigh.
    """

    def __init__(self, problem: Problem, solver: str) -> None:
        """Reads the journal.

        Args:
            problem: the problem.
            solver: the solver's name, for messages.
        """
        original_of(problem)
        problem.folder.mkdir(parents=True, exist_ok=True)
        self.problem, self._solver = problem, solver
        tell_if_all_in_float(problem)
        self._journal: Journal = known(problem.journal, problem.say)
        self.measured: list[MeasuredPlan] = []
        self.short, self.unseen = False, 0
        self._longest = problem.longest
        self._places: dict[str, tuple[PlaceChoice, ...]] = {}

    def solution(self, choose: Callable[["Search", Offer], None]) -> Solution:
        """Returns the best of the plans that a solver measures.

        If no plan keeps the budget, the nearest one is taken; after Ctrl-C, the best one so far.

        Args:
            choose: measures plans by calling `level`. It isn't called where the unchanged network keeps the budget.

        Raises:
            KeyboardInterrupt: Ctrl-C came before anything was measured.
            PenjingError: a technique proposes options at values.
        """
        try:
            whole = self.level(())
            taken = preferred(whole)
            if taken is not None or not self.structural:
                return self._solution(taken or self._nearest())
            choose(self, self._offer(whole))
            return self._solution(self._best())
        except KeyboardInterrupt:
            if not self.measured:
                raise
            self.problem.say(
                Lasting(f"Interrupted: going on with the best of the {len(self.measured)} candidates measured so far.")
            )
            return self._solution(self._best(), complete=False)

    @property
    def structural(self) -> dict[str, Technique]:
        """The techniques whose options are chosen place by place, by name."""
        return {name: one for name, one in self.problem.techniques.items() if one.stage == "structure"}

    def seen(self, options: Options) -> bool:
        """Tells whether these options were measured in this search already."""
        return key_of(options) in {key_of(one.structure) for one in self.measured}

    def explain(self, options: Options, places: tuple[PlaceChoice, ...]) -> None:
        """Notes what a plan takes at each place and the nearest rivals, which the solution tells if that plan is taken."""
        self._places[key_of(options)] = places

    def time_is_over(self) -> bool:
        """Tells whether another plan would probably be measured behind the deadline; if so, notes it and says so."""
        if self._longest <= self.problem.left:
            return False
        self.problem.say("The time for measuring candidates is over.")
        self.short = True
        return True

    def level(self, options: Options) -> list[MeasuredPlan]:
        """Measures a plan in floating point and in integers, unless the journal holds it."""
        key = key_of(options)
        if key not in self._journal:
            # Where mixing gains nothing for the whole network, it isn't tried for each plan.
            mixed = not options or gains_by_mixing(self._journal.get(key_of(()), ()))
            start = time.monotonic()
            self._journal[key] = measure_level(self.problem, options, mixed=mixed)
            self._longest = max(self._longest, time.monotonic() - start)
            if self.problem.journal is not None:
                write_journal(self.problem.journal, self._journal.values())
        for candidate in self._journal[key]:
            self.problem.say(in_words(candidate))
            if candidate not in self.measured:
                self.measured.append(candidate)
        return self._journal[key]

    def settled(self, options: Iterable[Option]) -> Options:
        """Returns options in the order in which they are carried out: branches, channels, then layers that are replaced."""
        order = sorted(options, key=lambda one: ORDER.index(one.place.kind))
        found = list[Option]()
        for name in dict.fromkeys(one.technique for one in order):
            found += self.structural[name].settled(self.problem.graph, [one for one in order if one.technique == name])
        return tuple(found)

    # The offer

    def _offer(self, whole: Sequence[MeasuredPlan]) -> Offer:
        """Asks techniques for options, and measures what kernels take and what each option alone does to the loss."""
        problem = self.problem
        structure = Structure(problem.graph, self._proposed(), problem.scope)
        replacements = self._replacements(structure)
        structure.note_gone(replacements)
        numbers = list(numbers_of(problem, whole))
        table = LatencyTable(cache_folder() / TABLE, problem.deployment, record=problem.record, say=problem.say)
        wanted = [kernel for one in numbers for kernel in structure.kernels(one.kernels, replacements)]
        deadline = None if problem.deadline is None else time.monotonic() + TABLE_SHARE * problem.left
        if problem.budget.latency_limit() is None:
            wanted = []  # nothing depends on it
        if refused := table.measure(wanted, say=problem.say, deadline=deadline):
            problem.say(
                f"{len(refused)} kernels have no latency in the table: layers aren't replaced by them, and where the network has "
                "them already, they count by what its other kernels take."
            )
        increase = LossIncrease(problem.graph, problem.data)
        damages = self._damages(structure, increase)
        original_ms = whole[0].original_ms
        assert original_ms is not None  # it was measured beside each candidate
        programs = [Program(problem, structure, replacements, damages, one, table, original_ms) for one in numbers]
        return Offer(structure, damages, self.structural, increase, programs)

    def _proposed(self) -> list[Option]:
        problem = self.problem
        found = [
            option
            for technique in self.structural.values()
            for option in technique.choices(problem.graph, problem.data, problem.capabilities, problem.scope)
        ]
        for option in found:
            if option.place.kind not in ORDER:
                raise PenjingError(
                    f"The solver '{self._solver}' chooses among options of groups, branches and weights, and the technique "
                    f"'{option.technique}' proposes one at the {option.place.kind} '{option.place.path}': take the solver "
                    "'widest_that_fits'."
                )
        return found

    def _replacements(self, structure: Structure) -> dict[str, list[Replacement]]:
        """Returns the kernels with which the options at weights replace the weights' own, and the nodes that go with them."""
        problem, batch = self.problem, self.problem.deployment.batch
        before = kernels_of(problem.graph, batch)
        found: dict[str, list[Replacement]] = {}
        for name, choice in structure.choices.items():
            if choice.place.kind == "weight":
                found[name] = []
                for option in choice.options[1:]:
                    assert option is not None
                    made = drafted(problem, problem.graph, (option,))
                    assert made is not None  # a technique that changes the structure makes what it proposes
                    found[name].append(structure.replacement(name, made, before, kernels_of(made, batch)))
        return found

    def _damages(self, structure: Structure, increase: LossIncrease) -> dict[str, np.ndarray]:
        """Returns the damage of each option at each place; infinite for options that there was no time to measure."""
        problem = self.problem
        problem.say("Weighing each option by how much the loss grows with it.")
        found: dict[str, np.ndarray] = {}
        for name, choice in structure.choices.items():
            options = [one for one in choice.options if one is not None]
            at = list(range(len(options)))
            if choice.place.kind == "group":
                at = sorted({(len(options) - 1) // 2, len(options) - 1})  # a power law tells the others
            known = {}
            for place in at:
                if problem.left <= 0:
                    self.short = True
                    break
                known[place] = increase.of(self.structural[options[place].technique], [options[place]])
            damages = [interpolated(place, options, known) for place in range(len(options))]
            self.unseen += len(known) < len(at) and sum(map(math.isinf, damages))
            found[name] = np.array([0.0, *damages, *([0.0] if choice.inside else [])])
        if self.unseen:
            total = sum(one is not None for choice in structure.choices.values() for one in choice.options)
            problem.say(
                Lasting(
                    f"There was no time to weigh {self.unseen} of {total} options: the plan is chosen among the others."
                )
            )
        return found

    # The choice

    def _best(self) -> MeasuredPlan:
        """Returns the candidate with the least damage among those that keep the budget; else the nearest."""
        keeping = [one for one in self.measured if one.meets]
        if not keeping:
            return self._nearest()
        least = min(map(_damage_of, keeping))
        alike = [one for one in keeping if _damage_of(one) == least]
        return preferred(alike) or alike[0]

    def _nearest(self) -> MeasuredPlan:
        return min(self.measured, key=lambda one: excess(self.problem, one))

    def _solution(self, taken: MeasuredPlan, complete: bool = True) -> Solution:
        places = self._places.get(key_of(taken.structure), ())
        return Solution(
            taken, tuple(self.measured), complete, self.short and not taken.meets, places=places, unseen=self.unseen
        )


def _damage_of(candidate: MeasuredPlan) -> float:
    """Returns how much the loss grows with a plan of this search, all of whose options have a part in it."""
    assert candidate.damage is not None
    return candidate.damage


def _share_gone(option: Option) -> float:
    return 1 - int(option.setting["keep"]) / int(option.before or 1)


def interpolated(place: int, options: Sequence[Option], known: Mapping[int, float]) -> float:
    """Returns the damage of an option: measured, or on a power of the share that goes, through two measured neighbours.

    Infinite where less than two are measured, and beyond the narrowest of them.
    """
    if place in known:
        return known[place]
    if len(known) < 2 or place > max(known):
        return math.inf
    above = sorted(at for at in known if at > place)
    low, high = max((at for at in known if at < place), default=above[-1]), above[0]
    x, first, second = (math.log(_share_gone(options[at])) for at in (place, low, high))
    share = (x - first) / (second - first)
    return math.exp((1 - share) * math.log(known[low]) + share * math.log(known[high]))
