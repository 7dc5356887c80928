"""Chooses a width for every group of channels and which branches stay, exactly, under a budget that is measured on the target."""

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from penjing.errors import PenjingError
from penjing.files import cache_folder
from penjing.graph import Option
from penjing.planning.assignment import DAMAGE, Assigned, Assignment, Joint, Unreachable, assign
from penjing.planning.candidates import (
    Options,
    drafted,
    excess,
    in_words,
    levels,
    measure_level,
    original_of,
    preferred,
)
from penjing.planning.damage import LossIncrease
from penjing.planning.joint_costs import UNKNOWN, Choice, Replacements, Structure
from penjing.planning.journal import Journal, key_of, known, write_journal
from penjing.planning.latency import Kernel, LatencyTable, kernels_of
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.problem import MARGIN, Problem, Solution
from penjing.planning.solvers._registry import solvers
from penjing.techniques import Technique

ORDER = ("branch", "group", "weight")  # of places, as their options are carried out
PRICED = ("latency", "size", "macs")  # the limits that kernels have prices for
ROUNDS = 5  # plans that are lowered and measured at most
CLOSE = 0.97  # a plan that takes this share of the allowed latency, or more, isn't improved further
MEASURED_WIDTHS = 3  # widths of each group whose damage is measured; that of others is interpolated
TABLE = "latency.sqlite"  # the table of all runs, in the folder of what is kept between them
TABLE_SHARE = 0.5  # share of the time until the deadline that kernels may be measured


@dataclass(frozen=True)
class _Numbers:
    """The numbers in which the network may compute.

    Attributes:
        integer: whether as many layers as the target can compute in integers.
        kernels: the unchanged network's kernels in these numbers, by node.
        latency: the unchanged network's latency in these numbers over that of the original.
        size_bytes: bytes of its file.
    """

    integer: bool
    kernels: Mapping[str, Kernel]
    latency: float
    size_bytes: int


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
    original_of(problem)
    if unpriced := [name for name in problem.budget.limits() if name not in PRICED]:
        raise PenjingError(
            f"The solver 'milp' has prices for {', '.join(PRICED)}, and the budget limits {', '.join(unpriced)}: leave that out, "
            "or take the solver 'widest_that_fits'."
        )
    problem.folder.mkdir(parents=True, exist_ok=True)
    search = _Search(problem)
    return search.solution()


class _Search:
    """The search for a plan: what was measured, and what it corrected."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._journal: Journal = known(problem.journal, problem.say)
        self._measured: list[MeasuredPlan] = []
        self._short = False

    def solution(self) -> Solution:
        try:
            whole = self._level(())
            taken = preferred(whole)
            if taken is not None or not self._structural():
                return self._solution(taken or self._nearest())
            return self._search(whole)
        except KeyboardInterrupt:
            if not self._measured:
                raise
            self._problem.say(
                f"Interrupted: going on with the best of the {len(self._measured)} candidates measured so far."
            )
            return self._solution(self._best(), complete=False)

    def _search(self, whole: Sequence[MeasuredPlan]) -> Solution:
        problem = self._problem
        offered = [
            option
            for technique in self._structural().values()
            for option in technique.choices(problem.graph, problem.data, problem.capabilities, problem.scope)
        ]
        for option in offered:
            if option.place.kind not in ORDER:
                raise PenjingError(
                    "The solver 'milp' chooses among options of groups, branches and weights, and the technique "
                    f"'{option.technique}' proposes one at the {option.place.kind} '{option.place.path}': take the solver "
                    "'widest_that_fits'."
                )
        structure = Structure(problem.graph, offered, problem.scope)
        replacements = self._replacements(structure)
        numbers = list(_numbers(problem, whole))
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
        damages = self._damages(structure)
        original_ms = whole[0].original_ms
        assert original_ms is not None  # it was measured beside each candidate
        programs = [_Program(problem, structure, replacements, damages, one, table, original_ms) for one in numbers]
        for _ in range(ROUNDS):
            solved = [(program, found) for program in programs if (found := program.solve()) is not None]
            if solved:
                program, found = min(solved, key=lambda one: one[1].totals[DAMAGE])
            else:
                problem.say("No plan is expected to keep the budget: the fastest is measured.")
                program, found = min(((p, p.fastest()) for p in programs), key=lambda one: one[0].latency(one[1]))
            options = self._settled(structure_options(structure.choices, found.taken, damages))
            problem.say(
                f"Of {len(structure.choices)} places {len(options)} change: expected increase of the loss "
                f"{found.totals[DAMAGE]:.4g} (at most {found.gap:.2%} above the least possible)."
            )
            again = key_of(options) in self._seen
            self._level(options)
            mine = [one for one in self._journal[key_of(options)] if one.integer == program.numbers.integer]
            if not mine or again:
                break
            if not program.correct(found, min(map(_latency, mine))) or problem.left <= problem.longest:
                break
        return self._solution(self._best())

    @property
    def _seen(self) -> set[str]:
        return {key_of(one.structure) for one in self._measured}

    def _structural(self) -> dict[str, Technique]:
        return {name: one for name, one in self._problem.techniques.items() if one.stage == "structure"}

    def _settled(self, options: Sequence[Option]) -> Options:
        """Returns options in the order in which they are carried out: branches, channels, then layers that are replaced."""
        order = sorted(options, key=lambda one: ORDER.index(one.place.kind))
        found = list[Option]()
        for name in dict.fromkeys(one.technique for one in order):
            found += self._structural()[name].settled(
                self._problem.graph, [one for one in order if one.technique == name]
            )
        return tuple(found)

    def _replacements(self, structure: Structure) -> dict[str, list[list[Kernel]]]:
        """Returns the kernels with which the options at weights replace the weights' own."""
        problem, batch = self._problem, self._problem.deployment.batch
        before = kernels_of(problem.graph, batch)
        found: dict[str, list[list[Kernel]]] = {}
        for name, choice in structure.choices.items():
            if choice.place.kind == "weight":
                found[name] = []
                for option in choice.options[1:]:
                    assert option is not None
                    made = drafted(problem, problem.graph, (option,))
                    assert made is not None  # a technique that changes the structure makes what it proposes
                    after = kernels_of(made, batch)
                    found[name].append([kernel for node, kernel in after.items() if before.get(node) != kernel])
        return found

    def _level(self, options: Options) -> list[MeasuredPlan]:
        """Measures a plan in floating point and in integers, unless the journal holds it."""
        key = key_of(options)
        if key not in self._journal:
            self._journal[key] = measure_level(self._problem, options)
            if self._problem.journal is not None:
                write_journal(self._problem.journal, self._journal.values())
        for candidate in self._journal[key]:
            self._problem.say(in_words(candidate))
            if candidate not in self._measured:
                self._measured.append(candidate)
        return self._journal[key]

    def _damages(self, structure: Structure) -> dict[str, np.ndarray]:
        """Returns the damage of each option at each place; infinite for options that there was no time to measure."""
        problem = self._problem
        problem.say("Measuring how much the loss grows with each option.")
        increase = LossIncrease(problem.graph, problem.data)
        found: dict[str, np.ndarray] = {}
        for name, choice in structure.choices.items():
            options = [one for one in choice.options if one is not None]
            at = list(range(len(options)))
            if choice.place.kind == "group":
                at = sorted({round(i) for i in np.linspace(0, len(options) - 1, MEASURED_WIDTHS)})
            known = {}
            for place in at:
                if problem.left <= 0:
                    self._short = True
                    break
                known[place] = increase.of(self._structural()[options[place].technique], [options[place]])
            damages = [_interpolated(place, options, known) for place in range(len(options))]
            found[name] = np.array([0.0, *damages, *([0.0] if choice.inside else [])])
        return found

    def _best(self) -> MeasuredPlan:
        """Returns the candidate with the least damage among those that keep the budget; else the nearest."""
        keeping = [one for one in self._measured if one.meets]
        if not keeping:
            return self._nearest()
        least = min(_damage_of(one) for one in keeping)
        alike = [one for one in keeping if _damage_of(one) == least]
        return preferred(alike) or alike[0]

    def _nearest(self) -> MeasuredPlan:
        return min(self._measured, key=lambda one: excess(self._problem, one))

    def _solution(self, taken: MeasuredPlan, complete: bool = True) -> Solution:
        return Solution(taken, tuple(self._measured), complete, self._short and not taken.meets)


class _Program:
    """The integer program for one kind of numbers, with prices that measured plans correct.

    Times are shares of the original's latency: the milliseconds of kernels, times a factor that measured plans correct.
    """

    def __init__(
        self,
        problem: Problem,
        structure: Structure,
        replacements: Replacements,
        damages: Mapping[str, np.ndarray],
        numbers: _Numbers,
        table: LatencyTable,
        original_ms: float,
    ) -> None:
        self._problem, self.numbers, self._original_ms = problem, numbers, original_ms
        counts = {name: choice.count for name, choice in structure.choices.items()}
        joints = [
            Joint((name,), {DAMAGE: np.where(np.isfinite(values), values, 0.0), UNKNOWN: 1.0 - np.isfinite(values)})
            for name, values in damages.items()
        ]
        joints += structure.joints(
            numbers.kernels, lambda kernel: table.ms(kernel) if table.knows(kernel) else None, replacements
        )
        self._assignment = Assignment(counts, joints, structure.implied)
        whole = dict.fromkeys(counts, 0)
        self._rest = numbers.size_bytes - self._assignment.total("bytes", whole)
        self._uncounted = problem.graph.cost().macs - self._assignment.total("macs", whole)
        self._ratios = [numbers.latency / (self._assignment.total("ms", whole) or 1.0)]

    def solve(self) -> Assigned | None:
        """Returns the choice with the least damage that should keep the budget; None if there is none."""
        limits = {UNKNOWN: 0.0}
        if (latency := self._allowed) is not None:
            limits["ms"] = latency / self._factor
        if (size := self._problem.budget.size_limit()) is not None:
            limits["bytes"] = MARGIN * size.of(original_of(self._problem).size_bytes) - self._rest
        if (macs := self._problem.budget.limit("macs")) is not None:
            limits["macs"] = macs.of(self._problem.counted["macs"]) - self._uncounted
        try:
            return assign(self._assignment, limits)
        except Unreachable as error:
            self._problem.say(f"{'In integers' if self.numbers.integer else 'In floating point'}: {error}")
            return None

    def fastest(self) -> Assigned:
        """Returns the fastest choice, whatever its damage."""
        found = assign(self._assignment, {UNKNOWN: 0.0}, "ms")
        return replace(found, totals={**found.totals, DAMAGE: self._assignment.total(DAMAGE, found.taken)})

    def latency(self, found: Assigned) -> float:
        """Returns the latency that a choice is expected to have, over that of the original."""
        return self._assignment.total("ms", found.taken) * self._factor

    def correct(self, found: Assigned, latency: float) -> bool:
        """Corrects the prices by the latency that a plan had; tells whether another plan may be better, or is needed."""
        allowed = self._allowed
        if allowed is None:
            return False
        self._ratios.append(latency / self._assignment.total("ms", found.taken))
        return not CLOSE * allowed <= latency <= allowed

    @property
    def _factor(self) -> float:
        """Returns the factor from milliseconds of kernels to shares of the original's latency.

        It is a mean over the measured plans: one measurement on a busy machine may be off by a tenth. The unchanged network's
        ratio, in which what kernels don't tell weighs less, counts only until there are others.
        """
        return statistics.geometric_mean(self._ratios[1:] or self._ratios)

    @property
    def _allowed(self) -> float | None:
        """The largest latency over that of the original, with the margin."""
        limit = self._problem.budget.latency_limit()
        return None if limit is None else MARGIN * limit.of(self._original_ms) / self._original_ms


def _numbers(problem: Problem, whole: Sequence[MeasuredPlan]) -> Iterator[_Numbers]:
    """Yields the numbers in which the unchanged network was measured, each once, with its fastest measurement."""
    plain = kernels_of(problem.graph, problem.deployment.batch)
    for integer in (False, True):
        found = min((one for one in whole if one.integer == integer), key=_latency, default=None)
        if found is None:
            continue
        kernels = plain
        if integer:
            some = next(iter(levels(problem, "numbers", problem.graph)))
            small = drafted(problem, problem.graph, some)
            assert small is not None  # it was measured
            kernels = kernels_of(small, problem.deployment.batch)
        yield _Numbers(integer, kernels, _latency(found), found.size_bytes)


def structure_options(
    choices: Mapping[str, Choice], taken: Mapping[str, int], damages: Mapping[str, np.ndarray]
) -> list[Option]:
    """Returns the options that are taken, each with its expected damage; places that go with a branch have none."""
    found = []
    for name, choice in choices.items():
        at = taken[name]
        option = choice.options[at] if at < len(choice.options) else None
        if option is not None:
            found.append(replace(option, found={**option.found, DAMAGE: float(damages[name][at])}))
    return found


def _latency(candidate: MeasuredPlan) -> float:
    """Returns the expected latency of a candidate over the original's; all candidates here are measured."""
    assert candidate.expected is not None
    return candidate.expected


def _damage_of(candidate: MeasuredPlan) -> float:
    return sum(float(option.found.get(DAMAGE, 0.0)) for option in candidate.structure)


def _share_gone(option: Option) -> float:
    return 1 - int(option.setting["keep"]) / int(option.before or 1)


def _interpolated(place: int, options: Sequence[Option], known: Mapping[int, float]) -> float:
    """Returns the damage of an option: measured, or on a power of the share that goes, through its measured neighbours.

    Infinite where nothing was measured on one side of it.
    """
    if place in known:
        return known[place]
    below = max((at for at in known if at < place), default=None)
    above = min((at for at in known if at > place), default=None)
    if below is None or above is None:
        return math.inf
    x, low, high = (math.log(_share_gone(options[at])) for at in (place, below, above))
    share = (x - low) / (high - low)
    return math.exp((1 - share) * math.log(known[below]) + share * math.log(known[above]))
