"""Chooses a grid for every layer, so that the budget is kept with the least noise in the outputs."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from penjing.budget import Budget
from penjing.errors import PenjingError
from penjing.graph import Graph, Option, Place, Plan
from penjing.planning.bit_costs import Costs
from penjing.planning.knapsack import OverBudget, Priced, solve
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.problem import Problem, Solution
from penjing.planning.solvers._grids import grids_proposed, nothing_proposed, only_technique
from penjing.planning.solvers._registry import solvers
from penjing.quantization import NothingToQuantize, grid_of

ROUNDS = 5  # solutions at most, each under a smaller budget than the one before, until the finished file fits

Limits = Mapping[str, float]  # bytes or milliseconds, by "bytes" and "ms"
Proposed = Mapping[Place, Mapping[str, Option]]  # by place, then by grid


@solvers.register(
    source="Yao et al., HAWQ-V3: Dyadic Neural Network Quantization, 2021 (bits by an integer program)",
    in_compress=False,
)
def least_noise(problem: Problem) -> Solution:
    """Measures the noise that each layer makes on each grid, and minimises the sum exactly under the budget.

    Sizes are those of the target's file, and latency is measured on the target. A grid of fewer bits than the target can
    store costs as many bits as are stored. If the finished file exceeds the budget after all, grids are chosen again under
    a smaller one.

    Raises:
        OverBudget: no choice keeps the budget; the error says how much the least possible takes.
        NothingToQuantize: nothing is proposed for any layer.
        PenjingError: there is nothing to choose, or the budget limits neither size nor latency, or it limits latency and
            nothing runs on a target.
    """
    technique = only_technique(problem, "least_noise")
    _check(problem.budget, problem.original is None)
    options = grids_proposed(problem, technique)
    if not options:
        raise nothing_proposed(problem)
    if all(len(some) < 2 for some in options.values()):
        raise PenjingError(
            "weights=(…) leaves nothing to choose: every layer has one grid, its own of per_layer=… or the only one named."
        )
    flat = [option for some in options.values() for option in some.values()]
    noise = technique.damage(problem.graph, flat, problem.data, problem.capabilities)
    noise_of = {(option.place, grid_of(option)): found for option, found in zip(flat, noise, strict=True)}
    problem.folder.mkdir(parents=True, exist_ok=True)
    costs = Costs(problem)
    limits = _limits(problem.budget, costs)
    smallest = {place: min(some, key=partial(costs.bytes, place.path)) for place, some in options.items()}
    least = technique.draft(problem.graph, [options[place][name] for place, name in smallest.items()], problem.data)
    if least is None:
        raise NothingToQuantize(f"{problem.graph.name} can't be quantised; the log says why.")
    if "ms" in limits:
        costs.profile(least)
    priced = {
        place: [
            Priced(name, noise_of[place, name], {kind: _cost(costs, kind, place, name) for kind in limits})
            for name in some
        ]
        for place, some in options.items()
    }
    # The cost of all but the weights whose grids are chosen.
    rest = {
        kind: amount - sum(_cost(costs, kind, place, name) for place, name in smallest.items())
        for kind, amount in costs.whole(least, list(limits)).items()
    }
    return _within(problem, options, priced, limits, rest, costs)


def _within(
    problem: Problem,
    options: Proposed,
    priced: Mapping[Place, Sequence[Priced]],
    limits: Limits,
    rest: Limits,
    costs: Costs,
) -> Solution:
    """Chooses grids and applies them, under smaller and smaller budgets, until the finished network keeps its limits."""
    technique, by_path = only_technique(problem, "least_noise"), {place.path: place for place in options}
    for _ in range(ROUNDS):
        try:
            chosen = solve(
                {place.path: some for place, some in priced.items()},
                {kind: limit - rest[kind] for kind, limit in limits.items()},
            )
        except OverBudget:
            least = {
                kind: rest[kind] + sum(min(one.costs[kind] for one in some) for some in priced.values())
                for kind in limits
            }
            raise OverBudget(
                f"No choice of bits keeps the budget; the least possible, each alone: {_amounts(least, limits)}. Allow more, "
                "name grids of fewer bits, or prune before."
            ) from None
        taken = [options[by_path[path]][one.name] for path, one in chosen.items()]
        try:
            small = technique.apply(problem.graph, taken, problem.data)
        except NothingToQuantize:
            raise PenjingError(
                "The budget is kept in floating point everywhere, so there is nothing to quantise: give a smaller budget, or "
                "leave 'float32' out of weights=(…)."
            ) from None
        real = costs.whole(small, list(dict.fromkeys(["bytes", *limits])))
        noise = math.fsum(one.damage for one in chosen.values())
        problem.say(
            f"{_counts([one.name for one in chosen.values()])} layers: {_amounts(real, limits)}; the expected noise of the "
            f"outputs is {noise:.3g} of their power"
        )
        over = {kind: real[kind] - limit for kind, limit in limits.items()}
        if all(excess <= 0 for excess in over.values()):
            return Solution(_candidate(problem, taken, small, real, costs), (), graph=small)
        rest = {kind: rest[kind] + max(0.0, over[kind]) for kind in limits}
    raise PenjingError(
        f"The budget was exceeded {ROUNDS} times, the last time with {_amounts(real, limits)}. Measured latency may be "
        "too noisy here; give a slightly larger budget, or try again on a quieter machine."
    )


def _candidate(problem: Problem, taken: Sequence[Option], small: Graph, real: Limits, costs: Costs) -> MeasuredPlan:
    ms = real.get("ms")
    share = None if ms is None else ms / costs.original_ms
    return MeasuredPlan(Plan(tuple(taken)), small.cost().params, share, ms, round(real["bytes"]), True)


def _limits(budget: Budget, costs: Costs) -> dict[str, float]:
    limits = {}
    if (size := budget.size_limit()) is not None:
        limits["bytes"] = size.of(costs.original_bytes)
    if (latency := budget.latency_limit()) is not None:
        limits["ms"] = latency.of(costs.original_ms)
    return limits


def _cost(costs: Costs, kind: str, place: Place, name: str) -> float:
    return costs.bytes(place.path, name) if kind == "bytes" else costs.ms(place.path, name)


def _counts(names: Sequence[str]) -> str:
    """Returns how many layers have which grid, in words; grains are left out if the grids' names differ without them."""
    plain = {name: name.partition("/")[0] for name in sorted(names)}
    called = plain if len(set(plain.values())) == len(plain) else {name: name for name in plain}
    return ", ".join(f"{called[name]} in {names.count(name)}" for name in plain)


def _amounts(found: Limits, limits: Limits) -> str:
    words = {"bytes": "{:,.0f} bytes of {:,.0f}", "ms": "{:.3f} ms of {:.3f}"}
    return "; ".join(words[kind].format(found[kind], limits[kind]) for kind in limits)


def _check(budget: Budget, simulated: bool) -> None:
    if budget.size is None and budget.latency is None:
        raise PenjingError(
            "The solver 'least_noise' chooses grids under a budget: give one, as penjing.Budget(size=…) or (latency=…)."
        )
    if other := [name for name in budget.limits() if name not in ("size", "latency")]:
        raise PenjingError(f"The solver 'least_noise' keeps limits on size and latency, and none on {other[0]}.")
    if simulated and budget.latency is not None:
        raise PenjingError(
            "Latency is measured on the target, and here nothing runs on one: the target is simulated, or is a record of your "
            "own. Give a budget on size, as penjing.Budget(size=…), or name a target of `penjing targets`."
        )
