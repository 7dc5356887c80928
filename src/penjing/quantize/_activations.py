"""From calibration data to the grid of every activation that is rounded."""

from typing import Any

from torch import fx

from penjing.graph import Graph
from penjing.quantize._calibrate import calibrate
from penjing.quantize._placement import Placed, Site
from penjing.quantize.grids import Affine, Grid, affine
from penjing.quantize.observers import find_observer


def lay_activations(graph: Graph, data: Any, placed: Placed, grid: Grid, observer: str) -> dict[Site, Affine]:
    """Observes the sites' values and lays the grid over each range; sites that share a grid share its range."""
    observe, make = find_observer(observer)
    watched = {site.grid_of: make() for site in placed.sites}
    calibrate(graph, data, watched)
    laid = {}
    for site in placed.sites:
        low, high = observe(watched[site.grid_of], grid.steps)
        laid[site] = affine(low, high, grid, site.within)
    return laid


def scale_of(value: Any, restored: dict[fx.Node, float]) -> float | None:
    """Returns the scale of what a layer reads, through the ops that pass integers on."""
    while isinstance(value, fx.Node) and value not in restored:
        value = value.args[0] if value.args else None
    return restored.get(value) if isinstance(value, fx.Node) else None
