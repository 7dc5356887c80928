"""Bits for every layer, so that the outputs suffer least and the budget is kept."""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from penjing.budget import Budget
from penjing.capabilities import DEFAULT, Capabilities, find
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.patterns import matches
from penjing.planning.bit_costs import Costs
from penjing.planning.knapsack import OverBudget, Priced, solve
from penjing.quantization import FLOAT, NothingToQuantize, sensitivity

ROUNDS = 5  # most solutions that are tried, each for a smaller budget than the last, until the finished file fits

Quantized = Callable[[Mapping[str, str]], Graph]  # from grids by module path to the graph


@dataclass(frozen=True)
class Bits:
    """What was chosen.

    Attributes:
        graph: quantised as chosen.
        grids: by module path.
        noise: expected power of the outputs' error over their power.
    """

    graph: Graph
    grids: Mapping[str, str]
    noise: float


def choose_bits(
    graph: Graph,
    data: Any,
    weights: Sequence[str],
    budget: Budget,
    quantized: Quantized,
    *,
    draft: Quantized | None = None,
    fixed: Sequence[str] = (),
    simulate: bool = False,
    target: Capabilities | str = DEFAULT,
    log: Callable[[str], None],
    **choices: Any,
) -> Bits:
    """Gives each layer one of several grids: the least noise at the outputs that the budget allows.

    The noise of each layer with each grid is measured (see `sensitivity`); the sum of noises is minimised exactly (see
    `solve`). Sizes are of the file that the target gets, latency is measured there; where what was chosen passes the
    budget after all, it is chosen anew with as much less. A grid of fewer bits than the target stores costs what is stored.

    Args:
        graph: a float graph.
        data: calibration data.
        weights: the grids to choose from; "float32" may be among them.
        budget: on size or latency or both. With `simulate`, size counts each weight's bits and a scale per output channel,
            all other tensors with batch norms folded, and nothing of a file's format.
        quantized: makes the graph; called with the grids of the layers that were chosen for.
        draft: makes one that costs as much and is made faster, for what is measured before anything is chosen.
        fixed: patterns of module paths that keep the grid that `quantized` gives them.
        simulate: whether no file is to be written.
        target: the runtime that files are written for and latency is measured on.
        log: called with what a user may want to read.
        choices: of `sensitivity`.

    Raises:
        OverBudget: no choice keeps the budget; it says how much the least possible takes.
        PenjingError: there is nothing to choose, or the budget is on what isn't chosen here.
    """
    _check(weights, budget, simulate)
    noise = sensitivity(graph, data, [name for name in weights if name != FLOAT], target=target, **choices)
    noise = {place: found for place, found in noise.items() if not matches(place, fixed)}
    if not noise:
        raise PenjingError("Every layer's grid is given by per_layer=…, so weights=(…) leaves nothing to choose.")
    with tempfile.TemporaryDirectory() as folder:
        costs = Costs(graph, Path(folder), simulate, find(target))
        limits = _limits(budget, costs)
        smallest = {place: min(weights, key=partial(costs.bytes, place)) for place in noise}
        least = (draft or quantized)(smallest)
        if "ms" in limits:
            costs.profile(least)
        options = {
            place: [
                Priced(
                    name,
                    0.0 if name == FLOAT else found[name],
                    {kind: _cost(costs, kind, place, name) for kind in limits},
                )
                for name in weights
            ]
            for place, found in noise.items()
        }
        # What everything else takes: the whole less what is chosen.
        rest = {
            kind: amount - sum(_cost(costs, kind, place, name) for place, name in smallest.items())
            for kind, amount in costs.whole(least, list(limits)).items()
        }
        return _within(options, limits, rest, costs, quantized, log)


def _within(
    options: Mapping[str, Sequence[Priced]],
    limits: Mapping[str, float],
    rest: Mapping[str, float],
    costs: Costs,
    quantized: Quantized,
    log: Callable[[str], None],
) -> Bits:
    for _ in range(ROUNDS):
        try:
            chosen = solve(options, {kind: limit - rest[kind] for kind, limit in limits.items()})
        except OverBudget:
            least = {
                kind: rest[kind] + sum(min(option.costs[kind] for option in some) for some in options.values())
                for kind in limits
            }
            raise OverBudget(
                f"No choice of bits keeps the budget; the least possible, each alone: {_amounts(least, limits)}. Allow more, "
                "name grids of fewer bits, or prune before."
            ) from None
        grids = {place: option.name for place, option in chosen.items()}
        try:
            small = quantized(grids)
        except NothingToQuantize:
            raise PenjingError(
                "The budget is kept in floating point everywhere, so there is nothing to quantise: give less, or leave "
                "'float32' out of weights=(…)."
            ) from None
        real = costs.whole(small, list(limits))
        log(_told(grids, real, limits))
        over = {kind: real[kind] - limit for kind, limit in limits.items()}
        if all(excess <= 0 for excess in over.values()):
            return Bits(small, grids, math.fsum(option.damage for option in chosen.values()))
        rest = {kind: rest[kind] + max(0.0, over[kind]) for kind in limits}
    raise PenjingError(
        f"The budget was passed {ROUNDS} times, the last time with {_told(grids, real, limits)}. Measured latency may be "
        "too noisy here; give a little more, or try again on a quieter machine."
    )


def _limits(budget: Budget, costs: Costs) -> dict[str, float]:
    limits = {}
    if (size := budget.size_limit()) is not None:
        limits["bytes"] = size.of(costs.original_bytes)
    if (latency := budget.latency_limit()) is not None:
        limits["ms"] = latency.of(costs.original_ms)
    return limits


def _cost(costs: Costs, kind: str, place: str, name: str) -> float:
    return costs.bytes(place, name) if kind == "bytes" else costs.ms(place, name)


def _told(grids: Mapping[str, str], real: Mapping[str, float], limits: Mapping[str, float]) -> str:
    names = list(grids.values())
    counts = ", ".join(f"{name} in {names.count(name)}" for name in dict.fromkeys(sorted(names)))
    return f"{counts} layers: {_amounts(real, limits)}"


def _amounts(found: Mapping[str, float], limits: Mapping[str, float]) -> str:
    words = {"bytes": "{:,.0f} bytes of {:,.0f}", "ms": "{:.3f} ms of {:.3f}"}
    return "; ".join(words[kind].format(found[kind], limits[kind]) for kind in limits)


def _check(weights: Sequence[str], budget: Budget, simulate: bool) -> None:
    if len(set(weights)) < 2:
        raise PenjingError(f"weights={tuple(weights)!r} leaves no choice; give a name, or several to choose from.")
    if budget.size is None and budget.latency is None:
        raise PenjingError(
            "weights=(…) chooses bits under a budget: pass budget=penjing.Budget(size=…) or (latency=…), or both."
        )
    if simulate and budget.latency is not None:
        raise PenjingError("Latency is measured on the target, and simulate=True makes nothing that it runs.")
