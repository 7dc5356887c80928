"""The integer program of a whole plan: what kernels take in one kind of numbers, the budget's limits, and their corrections."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from penjing.budget import LIMITED
from penjing.graph.memory import Lifetime
from penjing.planning.assignment import DAMAGE, Assigned, Assignment, Joint, Taking, Unreachable, assign
from penjing.planning.candidates import drafted, levels, original_of
from penjing.planning.joint_costs import TOO_LARGE, UNKNOWN, Choice, Replacements, Structure, stored_entries
from penjing.planning.latency import Kernel, LatencyTable, kernels_of
from penjing.planning.latency.curve import LatencyCurve
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.place_choice import PlaceChoice
from penjing.planning.problem import MARGIN, Problem
from penjing.planning.rivals import COUNTED, place_choices

WHOLE_COUNTS = 0.1  # of the unchanged network's latency beside that of thinner plans, in which other things weigh
CLOSE = 0.97  # a plan that takes this share of the allowed latency, or more, isn't improved further
USED = "used"  # the sum of the shares of all limits
SPARE = 1e-3  # share of a counted limit by which a plan that misses it is corrected beyond what it misses

Damages = Mapping[str, np.ndarray]
"""The expected increase of the loss for each option at each place, by the place's name; infinite where it isn't known."""


@dataclass(frozen=True)
class Numbers:
    """The numbers in which the network may compute.

    Attributes:
        integer: whether as many layers as the target can compute in integers.
        kernels: the unchanged network's kernels in these numbers, by node.
        alive: its activations in these numbers.
        latency: its latency in these numbers over that of the original.
        size_bytes: bytes of its file.
        energy_mj: the estimated millijoules of a sample in these numbers.
        stored: bytes of an entry of each kernel's weight, by node.
    """

    integer: bool
    kernels: Mapping[str, Kernel]
    alive: Sequence[Lifetime]
    latency: float
    size_bytes: int
    energy_mj: float
    stored: Mapping[str, float]


def numbers_of(problem: Problem, whole: Sequence[MeasuredPlan]) -> Iterator[Numbers]:
    """Yields the numbers in which the unchanged network was measured, each once, with its fastest measurement."""
    for integer in (False, True):
        found = min((one for one in whole if one.integer == integer), key=latency_of, default=None)
        if found is None:
            continue
        graph = problem.graph
        if integer:
            some = next(iter(levels(problem, "numbers", problem.graph)))
            small = drafted(problem, problem.graph, some)
            assert small is not None  # it was measured
            graph = small
        kernels = kernels_of(graph, problem.deployment.batch)
        cost = graph.cost()
        stored = stored_entries(kernels, {row.node: row.traffic.weights for row in cost.rows})
        yield Numbers(integer, kernels, cost.lifetimes, latency_of(found), found.size_bytes, cost.energy_mj(), stored)


class Program:
    """The integer program for one kind of numbers, with prices that measured plans correct.

    Attributes:
        numbers: the numbers.
        assignment: the places, their options, and what these cost.
    """

    numbers: Numbers
    assignment: Assignment

    def __init__(
        self,
        problem: Problem,
        structure: Structure,
        replacements: Replacements,
        damages: Damages,
        numbers: Numbers,
        table: LatencyTable,
        original_ms: float,
    ) -> None:
        """Prices all kernels that the network could have.

        Args:
            problem: the problem, for its budget.
            structure: the places and their options.
            replacements: what the options at weights put in the place of kernels.
            damages: the damages of options; see `weigh`.
            numbers: the numbers in which the network computes.
            table: the latencies of kernels.
            original_ms: the original's latency.
        """
        self.numbers = numbers
        self._problem, self._structure = problem, structure
        self._tightened: dict[str, float] = {}
        self._counts = {name: choice.count for name, choice in structure.choices.items()}
        largest = self._counted_limit("largest_tensor")
        self._joints = list(
            structure.joints(
                numbers.kernels,
                lambda kernel: table.ms(kernel) if table.knows(kernel) else None,
                replacements,
                largest,
                problem.graph.batch or problem.deployment.batch,
                numbers.stored,
            )
        )
        memory = list(structure.memory(numbers.alive, self._counted_limit("peak_memory"), largest))
        self._steps = sorted({name for joint in memory for name in joint.amounts} - {TOO_LARGE})
        self._joints += memory
        whole = dict.fromkeys(self._counts, 0)
        costs = Assignment(self._counts, self._joints, structure.implied)
        cost = problem.graph.cost()
        self._constants = {
            "bytes": numbers.size_bytes - costs.total("bytes", whole),
            "macs": cost.macs - costs.total("macs", whole),
            "layers": cost.layers - costs.total("layers", whole),
            "energy": numbers.energy_mj - costs.total("energy", whole),
        }
        self._curve = LatencyCurve()
        self._curve.add(costs.total("ms", whole) or 1.0, numbers.latency, WHOLE_COUNTS)
        limit = problem.budget.latency_limit()
        self._allowed = None if limit is None else MARGIN * limit.of(original_ms) / original_ms

        self.weigh(damages)

    def weigh(self, damages: Damages) -> None:
        """Takes these damages for those of the options; an option whose damage isn't known isn't taken."""
        joints = [
            Joint((name,), {DAMAGE: np.where(np.isfinite(values), values, 0.0), UNKNOWN: 1.0 - np.isfinite(values)})
            for name, values in damages.items()
        ]
        self.assignment = Assignment(self._counts, [*joints, *self._joints], self._structure.implied, self._constants)

    def solve(self) -> Assigned | None:
        """Returns the choice with the least damage that should keep the budget; None if there is none."""
        limits = self.limits()
        try:
            return assign(self.assignment, limits)
        except Unreachable as error:
            self._problem.say(f"{self._named}: {self._told(error, limits)}")
            return None

    def nearest(self) -> Assigned:
        """Returns the choice that comes nearest to the budget, whatever its damage: that with the least sum of used shares."""
        limits = {name: limit for name, limit in self.limits().items() if limit > 0}
        problem = self.assignment
        joints = []
        for joint in problem.joints:
            shares = [joint.amounts[name] / limit for name, limit in limits.items() if name in joint.amounts]
            used = {USED: np.sum(shares, axis=0)} if shares else {}
            joints.append(Joint(joint.places, {**joint.amounts, **used}))
        found = assign(replace(problem, joints=joints), {UNKNOWN: 0.0}, USED)
        return replace(found, totals={**found.totals, DAMAGE: problem.total(DAMAGE, found.taken)})

    def used(self, taken: Taking) -> float:
        """Returns the largest share of a limit that a choice is expected to use."""
        problem = self.assignment
        return max((problem.total(n, taken) / limit for n, limit in self.limits().items() if limit > 0), default=0.0)

    def latency(self, taken: Taking) -> float:
        """Returns the latency that a choice is expected to have, over that of the original."""
        return self._curve.latency(self._milliseconds(taken))

    def correct(self, taken: Taking, measured: MeasuredPlan) -> bool:
        """Corrects the prices by what a plan cost; tells whether another plan may be better, or is needed."""
        latency = latency_of(measured)
        self._curve.add(self._milliseconds(taken), latency)
        wrong = self._allowed is not None and not CLOSE * self._allowed <= latency <= self._allowed
        for name, share in self._problem.used(measured).items():
            if name != "latency" and share > (allowed := self._problem.allowed(name)):
                self._tightened[name] = self._tightened.get(name, 1.0) * allowed / share * (1 - SPARE)
                wrong = True
        return wrong

    def limits(self) -> dict[str, float]:
        """Returns the largest sums that the budget allows, by the names of amounts, at the prices as they are corrected now."""
        limits, budget = {UNKNOWN: 0.0}, self._problem.budget
        if self._allowed is not None:
            limits["ms"] = self._curve.kernels(self._allowed)
        if (size := budget.size_limit()) is not None:
            most = self._problem.allowed("size") * size.of(original_of(self._problem).size_bytes)
            limits["bytes"] = most * self._tightened.get("size", 1.0)
        limits |= {name: self._counted_limit(name) for name in COUNTED if budget.limit(name) is not None}
        if budget.limit("largest_tensor") is not None:
            limits[TOO_LARGE] = 0.0
        return limits | dict.fromkeys(self._steps, self._counted_limit("peak_memory"))

    def places(self, choices: Mapping[str, Choice], taken: Taking) -> tuple[PlaceChoice, ...]:
        """Returns what a choice takes at each place, with the nearest rival, at the prices as they are corrected now."""
        factor = self.latency(taken) / (self._milliseconds(taken) or 1.0)
        return place_choices(choices, self.assignment, taken, self.limits(), factor)

    @property
    def _named(self) -> str:
        return "In integers" if self.numbers.integer else "In floating point"

    def _milliseconds(self, taken: Taking) -> float:
        return self.assignment.total("ms", taken)

    def _counted_limit(self, name: str) -> float:
        """Returns the largest allowed amount of what is counted in a graph; infinite without a limit."""
        limit = self._problem.budget.limit(name)
        return math.inf if limit is None else limit.of(self._problem.counted[name]) * self._tightened.get(name, 1.0)

    def _told(self, error: Unreachable, limits: Mapping[str, float]) -> str:
        """Says which limit no plan is expected to keep, and what the least would be."""
        least = {name: amount for name, amount in error.least.items() if amount > limits[name]}
        if not least:
            return "no plan is expected to keep all limits together"
        name = max(least, key=lambda one: least[one] / limits[one] if limits[one] else 0.0)
        if name == "ms":
            expected = f"{self._curve.latency(least[name]):.3g}× the original's"
            return f"no plan is expected to keep the latency; the least would be {expected}"
        if name in (UNKNOWN, TOO_LARGE):
            return "no plan is expected to keep the largest tensor" if name == TOO_LARGE else "no plan has known costs"
        limited = {"bytes": "size"}.get(name, "peak_memory" if name in self._steps else name)
        amount, allowed = (LIMITED[limited].shown.format(one) for one in (least[name], limits[name]))
        told = limited.replace("_", " ")
        return f"no plan is expected to keep the {told}; the least would be {amount}, and {allowed} are allowed"


def latency_of(candidate: MeasuredPlan) -> float:
    """Returns the expected latency of a candidate over the original's; all candidates of these searches are measured."""
    assert candidate.expected is not None
    return candidate.expected
