"""The verb: from a float graph and calibration data to a graph that simulates integers exactly where they will be."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from penjing.errors import PenjingError, unknown_name
from penjing.graph import Graph, fold_batch_norms
from penjing.graph.patterns import check_patterns, matches
from penjing.quantize._calibrate import calibrate
from penjing.quantize._grids import ACTIVATION_GRIDS, WEIGHT_GRIDS, Affine, Grid, affine
from penjing.quantize._insert import PAIRS, insert_activations, insert_weights
from penjing.quantize._onnxruntime import ONNXRUNTIME
from penjing.quantize._placement import Placed, Placement, Site, place
from penjing.quantize._rewrites import move_up
from penjing.quantize.observers import Observer, observers
from penjing.quantize.observers._registry import statistics_of


class NothingToQuantize(PenjingError):
    """The graph holds no layer that the target could run in few bits."""


def quantize(
    graph: Graph,
    data: Any = None,
    *,
    weights: str = "int8",
    activations: str | None = "auto",
    observer: str = "minmax",
    exclude: Sequence[str] = (),
    placement: Placement = ONNXRUNTIME,
) -> Graph:
    """Returns a graph that rounds weights and activations to 8 bits, after training and without any more of it.

    Batch norms are folded. Weights are symmetric with one scale per output channel; activations are affine with one scale
    per tensor, chosen from the values on calibration data. Pairs of quantise and dequantise ops stand where the target
    turns them and what is between them into integer kernels. Weights stay float parameters with a pair behind them, so
    the graph can be trained; lowering stores them as integers.

    Args:
        graph: a float graph; it stays as it was.
        data: a `Data` with a calibration part, or an iterable of batches; see `calibrate`. Not needed for weights alone.
        weights: the weights' grid, "int8".
        activations: the activations' grid, "int8" or "uint8"; "auto" takes what the target prefers; None rounds weights
            only, which makes the model smaller but not faster.
        observer: how the activations' ranges are found: a name from `observers`, with its parameter behind a colon where
            it has one ("percentile:99.9").
        exclude: patterns of module paths ("layer1.*", "head"); what they name, or lies below it, computes in floating point.
        placement: what the target fuses.

    Raises:
        PenjingError: unknown names, a pattern that matches nothing, no calibration data, activations that aren't finite,
            a graph that is quantised already or has nothing to quantise.

    Example:
        >>> import torch
        >>> from penjing.graph import capture
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> graph = capture(net, torch.randn(2, 4))
        >>> small = quantize(graph, [torch.randn(16, 4) for _ in range(4)])
        >>> small.plan[0]["setting"]
        'int8 weights per channel, uint8 activations (minmax)'
    """
    weight_grid = _grid(weights, WEIGHT_GRIDS)
    chosen = placement.activations if activations == "auto" else activations
    activation_grid = None if chosen is None else _grid(chosen, ACTIVATION_GRIDS)
    name, observe = _observer(observer)
    if any(node.target in PAIRS for node in graph.program.graph.nodes):
        raise PenjingError("The graph is quantised already; quantise the float graph that it was made of.")
    small = fold_batch_norms(graph)
    placed = _place(small, placement, _excluding(graph, exclude))  # folding would hide the batch norms' names
    if not placed.layers:
        left = " that isn't excluded" if exclude else ""
        raise NothingToQuantize(
            f"{graph.name} has no convolution or linear layer{left} that {placement.name} could run in 8 bits."
        )
    setting = f"{weights} weights per channel"
    if activation_grid is not None:
        laid = _lay(small, data, placed, activation_grid, name, observe)
        restored = insert_activations(small, laid)
        inputs = {layer: _scale_of(layer.args[0], restored) for layer in placed.layers}
        setting += f", {activation_grid.name} activations ({observer})"
    else:
        inputs = {}
    insert_weights(small, placed.layers, weight_grid, inputs)
    places = dict.fromkeys(_place_of(layer) for layer in placed.layers)
    small.plan += [
        {"place": path, "technique": "quantize", "setting": setting, "before": "float32", "after": weights}
        for path in places
    ]
    return small.refresh()


def _grid(name: str, grids: dict[str, Grid]) -> Grid:
    if name not in grids:
        raise unknown_name("grid", str(name), grids)
    return grids[name]


def _observer(given: str) -> tuple[str, Observer]:
    """Reads "percentile" or "percentile:99.9"."""
    name, colon, text = given.partition(":")
    function = observers[name].function
    if not colon:
        return name, function
    try:
        parameter = float(text)
    except ValueError:
        raise PenjingError(f"The observer '{given}' has a parameter that is no number: '{text}'.") from None
    if function.__code__.co_argcount < 3:
        raise PenjingError(f"The observer '{name}' takes no parameter, so '{given}' means nothing.")
    return name, lambda statistics, steps: function(statistics, steps, parameter)


def _excluding(graph: Graph, patterns: Sequence[str]) -> Callable[[fx.Node], bool]:
    check_patterns(graph, patterns)
    return lambda node: any(matches(path, patterns) for path in (node.meta.get("module", ""), _place_of(node)))


def _place_of(node: fx.Node) -> str:
    """Returns where the user finds a layer: the module that holds its weight."""
    weight = node.args[1] if len(node.args) > 1 else None
    owner = str(weight.target).rpartition(".")[0] if isinstance(weight, fx.Node) and weight.op == "get_attr" else ""
    return owner or node.meta.get("module") or node.name


def _place(graph: Graph, placement: Placement, is_excluded: Callable[[fx.Node], bool]) -> Placed:
    placed = place(graph, placement, is_excluded)
    if not placed.rewritable and not placed.late_clips:
        return placed
    for node in placed.rewritable:
        placement.rewrites[node.target](graph.program.graph, node)
    for clip, source in placed.late_clips:
        move_up(graph.program.graph, clip, source)
    return place(graph.refresh(), placement, is_excluded)


def _lay(graph: Graph, data: Any, placed: Placed, grid: Grid, name: str, observe: Observer) -> dict[Site, Affine]:
    """Observes the sites' values and lays the grid over each range; sites that share a grid share its range."""
    make = statistics_of(name)
    watched = {site.grid_of: make() for site in placed.sites}
    calibrate(graph, data, watched)
    laid = {}
    for site in placed.sites:
        low, high = observe(watched[site.grid_of], grid.steps)
        laid[site] = affine(low, high, grid, site.within)
    return laid


def _scale_of(value: Any, restored: dict[fx.Node, float]) -> float | None:
    """Returns the scale of what a layer reads, through the ops that pass integers on."""
    while isinstance(value, fx.Node) and value not in restored:
        value = value.args[0] if value.args else None
    return restored.get(value) if isinstance(value, fx.Node) else None
