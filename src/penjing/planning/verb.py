"""`plan`, the verb that makes a plan: techniques propose options, a solver measures them on the target and chooses."""

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penjing.budget import Budget
from penjing.capabilities import DEFAULT
from penjing.checks import BATCH, COUNT, PATTERNS, TEXT, THREADS, a, checked, either, mapping, optional, several
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph, Plan
from penjing.graph.doors import GRAPH
from penjing.planning.problem import Deployment, Problem
from penjing.planning.solvers import find_solver
from penjing.targets import find_target, lower, machine_of
from penjing.techniques import Scope, find

log = logging.getLogger("penjing.planning")

TECHNIQUES = ("prune", "quantize")


@checked(
    graph=GRAPH,
    data=a(Data, "a penjing.Data"),
    target=TEXT,
    budget=optional(a(Budget, "a penjing.Budget")),
    techniques=either(
        several(TEXT, "names of techniques"), mapping(a(Mapping, "choices"), "a mapping from names to choices")
    ),
    solver=TEXT,
    include=PATTERNS,
    exclude=PATTERNS,
    keep_channels=PATTERNS,
    keep_float=PATTERNS,
    units=TEXT,
    min_channels=COUNT,
    threads=THREADS,
    batch=BATCH,
)
def plan(
    graph: Graph,
    data: Data,
    *,
    target: str = DEFAULT,
    budget: Budget | None = None,
    techniques: Sequence[str] | Mapping[str, Mapping[str, Any]] = TECHNIQUES,
    solver: str = "milp",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    keep_channels: Sequence[str] = (),
    keep_float: Sequence[str] = (),
    units: str = "auto",
    min_channels: int = 1,
    threads: int = 1,
    batch: int = 1,
) -> Plan:
    """Plans what to do where, so that the model keeps a budget, with latency and size as measured on the target.

    The plan isn't judged by its accuracy, since candidates are made without training. `apply` carries a plan out, `recover`
    trains the result, and `compress` does all of this.

    Args:
        graph: the original.
        data: the data from which evidence and the ranges of activations are taken.
        target: the runtime; see `penjing targets`.
        budget: limits on what the model costs, see `Budget`; without one, the default solver removes
            nothing and takes the fastest numbers.
        techniques: names in `penjing list techniques`, or a mapping from names to their choices, as
            `{"prune": {"criterion": "taylor"}, "quantize": {}}`.
        solver: a name in `penjing list solvers`.
        include: patterns of module paths; only these are pruned.
        exclude: patterns of module paths that stay as they are, and compute in floating point.
        keep_channels: patterns of module paths that are neither pruned nor factorised; they may be rounded.
        keep_float: patterns of module paths that compute in floating point; they may be pruned or factorised.
        units: what a unit of attention is; see `channels`.
        min_channels: how many units each group of channels keeps at least.
        threads: threads of the runtime.
        batch: batch size at which latency is measured.

    Raises:
        PenjingError: an unknown name, a budget on the metric, or a graph that can't be lowered.

    Warns:
        UserWarning: no candidate kept the budget; the plan is the one that came nearest.

    Example:
        >>> plan = pj.plan(graph, data, budget=pj.Budget(latency="0.5x"))  # doctest: +SKIP
        >>> small = pj.apply(graph, plan, data)  # doctest: +SKIP
    """
    if budget is not None and budget.drop is not None:
        raise PenjingError(
            "A plan is made without training, so drop=… can't be judged here: leave it out, or use compress."
        )
    choices = techniques if isinstance(techniques, Mapping) else {name: {} for name in techniques}
    found = {name: find(name, dict(chosen)) for name, chosen in choices.items()}
    solve = find_solver(solver)
    with tempfile.TemporaryDirectory() as folder:
        deployment = Deployment(target, threads, batch)
        scope = Scope(tuple(include), tuple(exclude), units, min_channels, tuple(keep_channels), tuple(keep_float))
        original = lower(graph, target, Path(folder) / f"original{find_target(target).suffix}")
        problem = Problem(
            graph,
            data,
            original,
            (budget or Budget()).on(machine_of(target)),
            deployment,
            found,
            scope,
            Path(folder) / "candidates",
            say=log.info,
        )
        solution = solve(problem)
    if not solution.taken.meets:
        warnings.warn(
            f"No candidate kept the budget of {problem.budget}; the plan is the one that came nearest.", stacklevel=3
        )
    return Plan(solution.plan.options, graph.architecture)
