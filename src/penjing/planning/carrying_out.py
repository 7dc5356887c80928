"""The verb that does what a plan says."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

from penjing.checks import PATH, a, among, checked, either, optional
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph, Option, Plan
from penjing.graph.doors import GRAPH
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
    """Returns the graph that a plan makes of the original; the graph given stays as it was.

    With the original and the `plan.json` of a finished run it gives the weights that the run had before recovery, bit for
    bit, on the same kind of machine. Training is no part of a plan: what was trained is in the run's `model.penjing`.

    Args:
        graph: the original, as it was captured for the plan.
        plan: what is to be done, or the path of a `plan.json`.
        data: that which the plan was made with, for criteria and for ranges of activations.
        stage: "structure" does what comes before recovery (channels, branches, weights that go); "numbers" what comes with
            or after it (grids); "all" both, without any training between them.

    Raises:
        PenjingError: a damaged plan; a plan of another model, or of a place that the graph hasn't (the error names the
            nearest); a setting that makes no sense; a plan without anything for the stage. Nothing is applied then.

    Example:
        >>> small = pj.apply(graph, "out/plan.json", data)  # doctest: +SKIP
    """
    steps = plan if isinstance(plan, Plan) else Plan.read(plan)
    wanted = {"all": ("structure", "numbers")}.get(stage, (stage,))
    chosen = [option for one in wanted for option in of_stage(steps, one)]
    if not chosen and len(steps):
        raise PenjingError(
            f"This plan has nothing for stage='{stage}': all of its {len(steps)} steps are of another. "
            f"Pass stage='{'numbers' if stage == 'structure' else 'structure'}', or 'all'."
        )
    return carried_out(graph, chosen, data)


def of_stage(plan: Plan, stage: str) -> list[Option]:
    """Returns the options of the techniques of one stage, in the plan's order.

    Raises:
        PenjingError: a technique is unknown.
    """
    stages = {option.technique: find(option.technique).stage for option in plan}
    return [option for option in plan if stages[option.technique] == stage]


def carried_out(graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
    """Returns a graph in which options were carried out, those of one technique that follow one another at once."""
    for technique, some in groupby(options, key=lambda option: option.technique):
        graph = find(technique).apply(graph, list(some), data)
    return graph
