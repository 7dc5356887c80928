"""Puts layers back to more bits until the metric holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from penjing.errors import PenjingError
from penjing.graph import Graph, Option, Place
from penjing.graph.places import Json
from penjing.planning.bit_costs import Costs
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.problem import Problem, Solution
from penjing.planning.solvers._grids import grids_proposed, nothing_proposed, only_technique
from penjing.planning.solvers._registry import solvers
from penjing.quantization import FLOAT, NothingToQuantize, find_grid, grid_of
from penjing.techniques import Technique

FREE = 1e-6  # share of the total cost below which a cost counts as zero


@dataclass(frozen=True)
class Step:
    """A layer that goes back to more bits.

    Attributes:
        place: module path of the layer.
        before: grid of the layer before the step.
        after: the wider grid after the step.
        noise: power of the outputs' error that the step removes, over the outputs' power.
        ms: milliseconds that the step costs, from profiles; None where nothing was run.
        bytes: bytes that the step costs.
    """

    place: str
    before: str
    after: str
    noise: float
    ms: float | None
    bytes: float

    def to_json(self) -> dict[str, Json]:
        """Returns the step as a plan holds it, with grids without their grain."""
        plain = replace(self, before=self.before.partition("/")[0], after=self.after.partition("/")[0])
        return {name: value for name, value in asdict(plain).items() if name != "place" and value is not None}


@solvers.register(
    source="Wu et al., Integer Quantization for Deep Learning Inference, 2020, section 5 (partial quantisation)",
    in_compress=False,
)
def hold_metric(problem: Problem) -> Solution:
    """Puts layers back on wider grids, as few and as cheap ones as possible, until the metric holds.

    Steps back are ordered by the noise that a step removes, over its cost. The cost is measured: latency in a profile on
    the target, and bytes, both as shares of the whole network's. Bisection finds the number of steps; it assumes that the
    metric grows with this number. A layer goes back to the grids that the target computes fast with (see `Numbers.wider`),
    and to floating point last.

    Raises:
        PenjingError: there is no metric to hold, or the metric doesn't hold with any layer in few bits.
    """
    if problem.held is None:
        raise PenjingError("The solver 'hold_metric' needs a metric to hold: quantize(…, drop=…) gives it one.")
    technique = only_technique(problem, "hold_metric")
    options = grids_proposed(problem, technique)
    small = problem.start if problem.start is not None else _first_level(problem, technique, options)
    metric, least = problem.held.metric, problem.held.least
    found = metric(small)
    problem.say(f"Quantised, the metric is {found:.4g}; at least {least:.4g} is asked for.")
    if found >= least:
        return _solution(problem, small)
    now = {place: FLOAT for place in options} | {
        step.place: grid_of(step) for step in small.plan.of("quantize") if step.place in options
    }
    usual = {place: grid for place, grid in now.items() if grid != FLOAT and len(options[place]) > 1}
    noise = _noise(problem, technique, [one for place in usual for one in options[place].values()])
    problem.folder.mkdir(parents=True, exist_ok=True)
    costs, measured = Costs(problem), problem.original is not None
    if measured:
        costs.profile(small)
    total = {"bytes": costs.whole(small, ["bytes"])["bytes"], "ms": costs.original_ms if measured else 0.0}
    worth = partial(_worth, total=total)
    wider = problem.capabilities.numbers.wider
    ways = [
        _steps(place.path, [grid, *_above(grid, options[place], wider)], noise[place], costs, measured, worth)
        for place, grid in usual.items()
    ]
    steps = sorted((step for way in ways for step in way), key=worth, reverse=True)
    tried: dict[int, tuple[Graph | None, float]] = {0: (small, found)}

    def holds(count: int) -> bool:
        back = {step.place: step.after for step in steps[:count]}
        taken = [options[place][back.get(place.path, grid)] for place, grid in now.items()]
        try:
            made = technique.apply(problem.graph, taken, problem.data)
        except NothingToQuantize:
            tried[count] = None, float("inf")
            return True
        tried[count] = made, metric(made)
        in_float = sum(grid == FLOAT for grid in back.values())
        problem.say(
            f"With {len(back)} of {len(usual)} layers back in more bits, {in_float} of them in floating point, the metric "
            f"is {tried[count][1]:.4g}."
        )
        return tried[count][1] >= least

    count = _fewest(len(steps), holds)
    made = tried[count][0] if count is not None else None
    if count is None or made is None:
        best = max(value for result, value in tried.values() if result is not None)
        raise PenjingError(
            f"The metric holds with no layer in few bits: it was {best:.4g} at best, and {least:.4g} is asked for. "
            "Allow a larger drop=…, or train with epochs=…."
        )
    _record(made, steps[:count])
    if measured:
        before, after = costs.whole(small, ["bytes", "ms"]), costs.whole(made, ["bytes", "ms"])
        problem.say(
            f"Steps back: {count}; {before['ms']:.3f} ms became {after['ms']:.3f} ms (float {costs.original_ms:.3f}), and "
            f"{before['bytes']:,.0f} bytes became {after['bytes']:,.0f}."
        )
    return _solution(problem, made)


def _first_level(problem: Problem, technique: Technique, options: Mapping[Place, Mapping[str, Option]]) -> Graph:
    """Returns the graph with the first grid that is proposed for each layer.

    Raises:
        NothingToQuantize: nothing is proposed.
    """
    if not options:
        raise nothing_proposed(problem)
    return technique.apply(problem.graph, [next(iter(some.values())) for some in options.values()], problem.data)


def _solution(problem: Problem, small: Graph) -> Solution:
    """Returns the solution for a graph whose metric holds, with its size; its latency isn't measured."""
    size = round(Costs(problem).whole(small, ["bytes"])["bytes"])
    return Solution(
        MeasuredPlan(small.plan.of("quantize"), small.cost().params, None, None, size, True), (), graph=small
    )


def _noise(problem: Problem, technique: Technique, options: Sequence[Option]) -> dict[Place, dict[str, float]]:
    """Returns the noise of each option, by place and grid."""
    found: dict[Place, dict[str, float]] = {}
    damages = technique.damage(problem.graph, options, problem.data, problem.capabilities)
    for option, noise in zip(options, damages, strict=True):
        found.setdefault(option.place, {})[grid_of(option)] = noise
    return found


def _above(grid: str, there: Mapping[str, Option], wider: Sequence[str]) -> list[str]:
    """Returns the wider grids to which a layer may go back, among those proposed for it, from few bits to floating point."""
    bits = {name: find_grid(name.partition("/")[0]).bits for name in there if name.partition("/")[0] in wider}
    more = sorted((name for name in bits if bits[name] > find_grid(grid.partition("/")[0]).bits), key=bits.__getitem__)
    return [*more, *([FLOAT] if FLOAT in there else [])]


def _steps(
    place: str,
    grids: Sequence[str],
    noise: Mapping[str, float],
    costs: Costs,
    measured: bool,
    worth: Callable[[Step], float],
) -> list[Step]:
    """Returns the steps of one layer from the first of these grids to the last, each worth less than the step before it.

    A step that is worth more is merged with the step before it.
    """
    found: list[Step] = []
    for after in grids[1:]:
        step = _step(place, found[-1].after if found else grids[0], after, noise, costs, measured)
        while found and worth(step) >= worth(found[-1]):
            step = _step(place, found.pop().before, after, noise, costs, measured)
        found.append(step)
    return found


def _step(place: str, before: str, after: str, noise: Mapping[str, float], costs: Costs, measured: bool) -> Step:
    return Step(
        place, before, after,
        noise[before] - noise.get(after, 0.0),
        costs.ms(place, after) - costs.ms(place, before) if measured else None,
        costs.bytes(place, after) - costs.bytes(place, before),
    )  # fmt: skip


def _worth(step: Step, total: Mapping[str, float]) -> float:
    """Returns the noise that a step removes, over its cost as a share of the whole network's."""
    latency = max(0.0, step.ms or 0.0) / (total["ms"] or 1.0)
    return step.noise / max(FREE, latency + step.bytes / total["bytes"])


def _fewest(most: int, holds: Callable[[int], bool]) -> int | None:
    """Returns the smallest number for which `holds` is true, by doubling and bisection; None if it is false for `most`."""
    low, high = 0, 1
    while high < most and not holds(high):
        low, high = high, 2 * high
    if high >= most:
        high = most
        if not most or not holds(most):
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _record(made: Graph, steps: Sequence[Step]) -> None:
    """Writes into the plan which layers went back, and what each step costs."""
    ways: dict[str, list[Step]] = {}
    for step in steps:
        ways.setdefault(step.place, []).append(step)
    options = list[Option]()
    for option in made.plan:
        way = ways.get(option.place.path, []) if option.technique == "quantize" else []
        found = {**option.found, "steps_back": [step.to_json() for step in way]} if way else option.found
        found = {**found, "reason": "metric"} if way and way[-1].after == FLOAT else found
        options.append(replace(option, found=found))
    made.plan = made.plan.having(options)
