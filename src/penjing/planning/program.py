"""What choices of options cost in one kind of numbers, by prices that measured plans correct, and the least harmful of them."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from penjing.planning.assignment import DAMAGE, Assigned, Assignment, Joint, Unreachable, assign
from penjing.planning.candidates import drafted, levels, original_of
from penjing.planning.joint_costs import UNKNOWN, Choice, Replacements, Structure
from penjing.planning.latency import Kernel, LatencyTable, kernels_of
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.place_choice import PlaceChoice
from penjing.planning.problem import MARGIN, Problem
from penjing.planning.rivals import place_choices

CLOSE = 0.97  # a plan that takes this share of the allowed latency, or more, isn't improved further


@dataclass(frozen=True)
class Numbers:
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


class Program:
    """The integer program for one kind of numbers, with prices that measured plans correct.

    Times are shares of the original's latency: the milliseconds of kernels, times a factor that measured plans correct.
    """

    def __init__(
        self,
        problem: Problem,
        structure: Structure,
        replacements: Replacements,
        damages: Mapping[str, np.ndarray],
        numbers: Numbers,
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
        self.assignment = Assignment(counts, joints, structure.implied)
        whole = dict.fromkeys(counts, 0)
        self._rest = numbers.size_bytes - self.assignment.total("bytes", whole)
        self._uncounted = problem.graph.cost().macs - self.assignment.total("macs", whole)
        self._ratios = [numbers.latency / (self.assignment.total("ms", whole) or 1.0)]

    def solve(self) -> Assigned | None:
        """Returns the choice with the least damage that should keep the budget; None if there is none."""
        try:
            return assign(self.assignment, self.limits())
        except Unreachable as error:
            self._problem.say(f"{'In integers' if self.numbers.integer else 'In floating point'}: {error}")
            return None

    def limits(self) -> dict[str, float]:
        """Returns the largest sums that the budget allows, by the names of amounts, at the prices as they are corrected now."""
        limits = {UNKNOWN: 0.0}
        if (latency := self._allowed) is not None:
            limits["ms"] = latency / self._factor
        if (size := self._problem.budget.size_limit()) is not None:
            limits["bytes"] = MARGIN * size.of(original_of(self._problem).size_bytes) - self._rest
        if (macs := self._problem.budget.limit("macs")) is not None:
            limits["macs"] = macs.of(self._problem.counted["macs"]) - self._uncounted
        return limits

    def fastest(self) -> Assigned:
        """Returns the fastest choice, whatever its damage."""
        found = assign(self.assignment, {UNKNOWN: 0.0}, "ms")
        return replace(found, totals={**found.totals, DAMAGE: self.assignment.total(DAMAGE, found.taken)})

    def latency(self, taken: Mapping[str, int]) -> float:
        """Returns the latency that a choice is expected to have, over that of the original."""
        return self.assignment.total("ms", taken) * self._factor

    def places(self, choices: Mapping[str, Choice], taken: Mapping[str, int]) -> tuple[PlaceChoice, ...]:
        """Returns what a choice takes at each place, with the nearest rival, at the prices as they are corrected now."""
        return place_choices(choices, self.assignment, taken, self.limits(), self._factor)

    def correct(self, taken: Mapping[str, int], latency: float) -> bool:
        """Corrects the prices by the latency that a plan had; tells whether another plan may be better, or is needed."""
        allowed = self._allowed
        if allowed is None:
            return False
        self._ratios.append(latency / self.assignment.total("ms", taken))
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


def numbers_of(problem: Problem, whole: Sequence[MeasuredPlan]) -> Iterator[Numbers]:
    """Yields the numbers in which the unchanged network was measured, each once, with its fastest measurement."""
    plain = kernels_of(problem.graph, problem.deployment.batch)
    for integer in (False, True):
        found = min((one for one in whole if one.integer == integer), key=latency_of, default=None)
        if found is None:
            continue
        kernels = plain
        if integer:
            some = next(iter(levels(problem, "numbers", problem.graph)))
            small = drafted(problem, problem.graph, some)
            assert small is not None  # it was measured
            kernels = kernels_of(small, problem.deployment.batch)
        yield Numbers(integer, kernels, latency_of(found), found.size_bytes)


def latency_of(candidate: MeasuredPlan) -> float:
    """Returns the expected latency of a candidate over the original's; all candidates here are measured."""
    assert candidate.expected is not None
    return candidate.expected
