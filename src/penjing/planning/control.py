"""Layers that go back to more bits until the metric holds."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from penjing.capabilities import DEFAULT, Capabilities, find
from penjing.errors import PenjingError
from penjing.graph import Graph, Option, Plan
from penjing.graph.patterns import matches
from penjing.graph.places import Json
from penjing.planning.bit_costs import Costs, grids_of
from penjing.quantization import FLOAT, NothingToQuantize, find_grid, sensitivity

WIDER = ("int8", FLOAT)  # where layers may go back to; a step of it is left out where it isn't wider
FREE = 1e-6  # share of the total cost below which a cost counts as zero


@dataclass(frozen=True)
class Step:
    """A layer that goes back to more bits.

    Attributes:
        place: its module path.
        before: grid.
        after: wider grid.
        noise: power of the outputs' error that goes with it, over their power.
        ms: milliseconds that it costs, from profiles; None where nothing was run.
        bytes: that it costs.
    """

    place: str
    before: str
    after: str
    noise: float
    ms: float | None
    bytes: float

    def to_json(self) -> dict[str, Json]:
        """Returns what a plan says of it."""
        return {name: value for name, value in asdict(self).items() if name != "place" and value is not None}


def hold_metric(
    graph: Graph,
    small: Graph,
    data: Any,
    quantized: Callable[[Mapping[str, str]], Graph],
    metric: Callable[[Graph], float],
    limit: float,
    *,
    fixed: Sequence[str] = (),
    simulate: bool = False,
    target: Capabilities | str = DEFAULT,
    log: Callable[[str], None],
    **choices: Any,
) -> Graph:
    """Returns a graph of which the metric is at least `limit`, with as cheap layers back in more bits as suffice.

    Layers go back in the order of the noise that they take away over what they cost, which is measured: latency in a
    profile of the target, and bytes, both as shares of the whole network's. How many go back is found by bisection, which
    takes it that the metric grows with their number. ONNX Runtime computes with 16-bit integers no faster than in
    floating point, so layers go from few bits to 8 and from there to floating point.

    Args:
        graph: the float graph.
        small: it, quantised.
        data: calibration data.
        quantized: makes such a graph; called with the grids of some layers by module path.
        metric: of a graph; higher is better.
        limit: the least that is wanted.
        fixed: patterns of module paths that keep their grid.
        simulate: whether nothing is run on the target; then bytes are the only cost.
        target: the runtime that files are written for and latency is measured on.
        log: called with what a user may want to read.
        choices: of `sensitivity`.

    Raises:
        PenjingError: the metric doesn't hold with any layer in few bits.
    """
    found = metric(small)
    log(f"Quantised, the metric is {found:.4g}; at least {limit:.4g} is asked for.")
    if found >= limit:
        return small
    usual = {place: grid for place, grid in grids_of(small).items() if grid != FLOAT and not matches(place, fixed)}
    wider = [name for name in WIDER if name != FLOAT]
    noise = sensitivity(graph, data, list(dict.fromkeys([*usual.values(), *wider])), target=target, **choices)
    with tempfile.TemporaryDirectory() as folder:
        costs = Costs(graph, Path(folder), simulate, find(target))
        if not simulate:
            costs.profile(small)
        total = {"bytes": costs.whole(small, ["bytes"])["bytes"], "ms": 0.0 if simulate else costs.original_ms}
        worth = partial(_worth, total=total)
        ways = [_steps(place, grid, noise[place], costs, simulate, worth) for place, grid in usual.items()]
        steps = sorted((step for way in ways for step in way), key=worth, reverse=True)
        tried: dict[int, tuple[Graph | None, float]] = {0: (small, found)}

        def holds(count: int) -> bool:
            grids = {step.place: step.after for step in steps[:count]}
            try:
                made = quantized(grids)
            except NothingToQuantize:
                tried[count] = None, float("inf")
                return True
            tried[count] = made, metric(made)
            in_float = sum(grid == FLOAT for grid in grids.values())
            log(
                f"With {len(grids)} of {len(usual)} layers back in more bits, {in_float} of them in floating point, the metric "
                f"is {tried[count][1]:.4g}."
            )
            return tried[count][1] >= limit

        count = _fewest(len(steps), holds)
        made = tried[count][0] if count is not None else None
        if count is None or made is None:
            best = max(value for result, value in tried.values() if result is not None)
            raise PenjingError(
                f"The metric holds with no layer in few bits: it was {best:.4g} at best, and {limit:.4g} is asked for. "
                "Allow a larger drop=…, or train with epochs=…."
            )
        _record(made, steps[:count])
        if not simulate:
            before, after = costs.whole(small, ["bytes", "ms"]), costs.whole(made, ["bytes", "ms"])
            log(
                f"Steps back: {count}; {before['ms']:.3f} ms became {after['ms']:.3f} ms (float {costs.original_ms:.3f}), and "
                f"{before['bytes']:,.0f} bytes became {after['bytes']:,.0f}."
            )
    return made


def _steps(
    place: str, grid: str, noise: Mapping[str, float], costs: Costs, simulate: bool, worth: Callable[[Step], float]
) -> list[Step]:
    """Returns the way of one layer up to floating point, each step a worse bargain than the one before."""
    found: list[Step] = []
    for after in WIDER:
        if after == FLOAT or find_grid(after).bits > find_grid(grid).bits:
            step = _step(place, found[-1].after if found else grid, after, noise, costs, simulate)
            while found and worth(step) >= worth(found[-1]):
                step = _step(place, found.pop().before, after, noise, costs, simulate)
            found.append(step)
    return found


def _step(place: str, before: str, after: str, noise: Mapping[str, float], costs: Costs, simulate: bool) -> Step:
    return Step(
        place, before, after,
        noise[before] - noise.get(after, 0.0),
        None if simulate else costs.ms(place, after) - costs.ms(place, before),
        costs.bytes(place, after) - costs.bytes(place, before),
    )  # fmt: skip


def _worth(step: Step, total: Mapping[str, float]) -> float:
    """Returns the noise that goes, over the share of the whole that it costs."""
    latency = max(0.0, step.ms or 0.0) / (total["ms"] or 1.0)
    return step.noise / max(FREE, latency + step.bytes / total["bytes"])


def _fewest(most: int, holds: Callable[[int], bool]) -> int | None:
    """Returns the smallest number for which it holds, by doubling and bisection; None if not for the largest."""
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
    made.plan = Plan(tuple(options))
