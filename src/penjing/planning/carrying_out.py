"""`apply`, the verb that carries out a plan."""

import difflib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

from penjing.checks import PATH, a, among, checked, either, optional
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph, Option, Plan
from penjing.graph.doors import GRAPH
from penjing.graph.places import Architecture
from penjing.techniques import find

STAGES = ("structure", "numbers", "all")


@checked(
    graph=GRAPH,
    plan=either(a(Plan, "a penjing.Plan"), PATH),
    data=optional(a(Data, "a penjing.Data")),
    stage=among(*STAGES),
)
def apply(
    graph: Graph,
    plan: Plan | Path | str,
    data: Data | None = None,
    *,
    stage: Literal["structure", "numbers", "all"] = "structure",
) -> Graph:
    """Carries out a plan and returns the resulting graph; `graph` stays as it was.

    From the original and the `plan.json` of a finished run it makes the weights that the run had before recovery, bit for
    bit, on the same kind of machine. A plan doesn't hold training: the trained weights are in the run's `model.penjing`.

    Args:
        graph: the original, as it was captured for the plan.
        plan: the plan, or the path of a `plan.json`.
        data: the data that the plan was made with, for criteria and for ranges of activations.
        stage: "structure" carries out what comes before recovery (channels, branches and weights that go), "numbers" what
            comes with or after it (grids), "all" both, without any training between them.

    Raises:
        PenjingError: the plan is damaged, was made for a model of another architecture, or names a place that the graph
            hasn't (the error gives the nearest); a setting makes no sense; or the plan has nothing for the stage. Nothing is
            applied then.

    Example:
        >>> small = pj.apply(graph, "out/plan.json", data)  # doctest: +SKIP
    """
    steps = plan if isinstance(plan, Plan) else Plan.read(plan)
    _check_architecture(graph, steps)
    wanted = {"all": ("structure", "numbers")}.get(stage, (stage,))
    chosen = [option for one in wanted for option in of_stage(steps, one)]
    if not chosen and len(steps):
        raise PenjingError(
            f"This plan has nothing for stage='{stage}': all of its {len(steps)} steps are of another stage. "
            f"Pass stage='{'numbers' if stage == 'structure' else 'structure'}', or 'all'."
        )
    return carried_out(graph, chosen, data)


def _check_architecture(graph: Graph, plan: Plan) -> None:
    """Refuses the plan of a model with other parameters, which may have places of the same names.

    A graph on which the plan was begun already, as when its channels were removed and its numbers are still to come, is
    known by the architecture that it was captured with.

    Raises:
        PenjingError: the plan was made for another architecture.
    """
    meant = plan.architecture
    if meant is None or meant.tensors in (graph.architecture.tensors, _tensors(graph.plan.architecture)):
        return
    modules = {".".join(parts[:count]) for parts in map(_parts, graph.tensors()) for count in range(1, len(parts))}
    names = modules | {node.name for node in graph.program.graph.nodes if node.op != "placeholder"}
    missing = next((option.place for option in plan if option.place.path not in names), None)
    near = difflib.get_close_matches(missing.path, modules, 1, 0.0) if missing is not None else []
    hint = f", which has no '{missing}' (the nearest is '{near[0]}')" if missing is not None and near else ""
    differ = ": names or shapes of their tensors differ" if meant.params == graph.architecture.params else ""
    raise PenjingError(
        f"The plan was made for {meant}, and this graph is {graph.architecture}, another architecture{hint}{differ}. Nothing was "
        "applied. Pass the graph of the original, as it was captured for the plan."
    )


def _parts(path: str) -> list[str]:
    return path.split(".")


def _tensors(architecture: Architecture | None) -> str | None:
    return None if architecture is None else architecture.tensors


def of_stage(plan: Plan, stage: str) -> list[Option]:
    """Returns the options of the techniques of one stage, in the plan's order.

    Raises:
        PenjingError: a technique is unknown.
    """
    stages = {option.technique: find(option.technique).stage for option in plan}
    return [option for option in plan if stages[option.technique] == stage]


def carried_out(graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
    """Returns a graph in which the options are carried out; neighbours of one technique are carried out together."""
    for technique, some in groupby(options, key=lambda option: option.technique):
        graph = find(technique).apply(graph, list(some), data)
    return graph
