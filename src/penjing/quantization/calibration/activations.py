"""Finds the grid of every activation that is rounded, from calibration data."""

from typing import Any

from torch import Tensor, fx

from penjing.capabilities import Placement
from penjing.evidence.observation import observe
from penjing.graph import Graph
from penjing.quantization.calibration.constant import Steady, check_vary
from penjing.quantization.calibration.running import in_floats
from penjing.quantization.grids import Affine, Grid, affine
from penjing.quantization.observers import ChosenObserver
from penjing.quantization.placement.sites import Placed, Site


def lay_activations(
    graph: Graph,
    data: Any,
    placed: Placed,
    placement: Placement,
    grid: Grid,
    observer: ChosenObserver,
    keep: int = 0,
) -> tuple[dict[Site, Affine], list[list[Tensor]]]:
    """Observes the sites' values and lays the grid over each range; sites that share a grid share its range.

    Returns:
        The grids, and the first `keep` samples; see `observe`.

    Raises:
        PenjingError: there is no data, or a value isn't finite or never changes.
    """
    seen = {site.grid_of: observer.statistics() for site in placed.sites}
    inputs = {
        node: Steady()
        for node in graph.program.graph.nodes
        if node.op == "placeholder" and node not in seen and isinstance(node.meta.get("val"), Tensor)
    }
    kept = observe(graph, data, {**seen, **inputs}, keep=keep, compute=in_floats)
    check_vary(graph, placed, placement, seen, inputs)
    laid = {}
    for site in placed.sites:
        found = seen[site.grid_of]
        # Observers choose between ranges; a single value leaves nothing to choose.
        low, high = (found.low, found.high) if found.low == found.high else observer.range_of(found, grid.steps)
        laid[site] = affine(low, high, grid, site.within)
    return laid, kept


def scale_of(value: Any, restored: dict[fx.Node, float]) -> float | None:
    """Returns the scale of a layer's input, through the ops that pass integers on."""
    while isinstance(value, fx.Node) and value not in restored:
        value = value.args[0] if value.args else None
    return restored.get(value) if isinstance(value, fx.Node) else None
