"""Activations in training: values that share a grid, whose step, bound or range is trained and then a constant again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, fx, nn

from penjing.graph import Graph
from penjing.graph.clips import EVERYTHING, Interval
from penjing.graph.edit.rewriter import Writer
from penjing.graph.straight_through import ops
from penjing.quantization.grids import FEW_BITS, SMALLEST_SCALE, Affine, Grid, affine
from penjing.quantization.placement.insert import GRID_OF, WITHIN
from penjing.quantization.training._twins import quantize_by_clip, quantize_by_range, quantize_by_step

PREFIX = "quantizers"


@dataclass(eq=False)
class TrainedActivation:
    """Activations that are rounded on one grid.

    Attributes:
        pairs: names of the quantise nodes in the quantised graph.
        laid: the grid from which training starts, as found on calibration data.
        within: bounds that the grid may not pass.
        learns: the learned quantity, "step", "clip" or "range"; see `Method`.
    """

    pairs: tuple[str, ...]
    laid: Affine
    within: Interval
    learns: Literal["step", "clip", "range"]
    _paths: list[str] = field(default_factory=list, init=False)

    def insert(self, graph: Graph) -> None:
        """Replaces the pairs in a quantised graph by roundings that are trained.

        Args:
            graph: the graph that will be trained; call `refresh()` on it afterwards.
        """
        grid, count = self.laid.grid, len(self.pairs) if self.learns == "range" else 1
        self._paths = [f"{PREFIX}.{name}_{self.learns}" for name in self.pairs[:count]]
        low, high = self.laid.range
        for path in self._paths:
            if self.learns == "range":
                graph.set_tensor(path, torch.tensor([low, high]))
            else:
                start = self.laid.scale if self.learns == "step" else high
                graph.set_tensor(path, nn.Parameter(torch.tensor([start])))
        for index, name in enumerate(self.pairs):
            quantize = _find(graph, name)
            source: Any = quantize.args[0]
            write = Writer.before(quantize)
            fetched = [write.fetch(path) for path in self._paths]
            if self.learns == "step":
                batched = source.op != "get_attr"
                node = write(quantize_by_step, source, fetched[0], self.laid.zero_point, grid.low, grid.high, batched)
            elif self.learns == "clip":
                node = write(quantize_by_clip, source, fetched[0], grid.steps)
            else:
                node = write(quantize_by_range, source, fetched[index], fetched, grid.low, grid.high)
            for restored in list(quantize.users):
                restored.replace_all_uses_with(node)

    @property
    def largest(self) -> float:
        """The largest step, or bound, with which the grid doesn't pass `within`; infinity where nothing limits it."""
        if self.learns == "clip":
            return self.within[1]
        grid, zero = self.laid.grid, self.laid.zero_point
        above = _fits(self.within[1], grid.high - zero)
        return min(above, _fits(-self.within[0], zero - grid.low))

    def keep_in_bounds(self, graph: Graph) -> None:
        """Clamps a learned step or bound to the values that are allowed, after a training step moved it."""
        if self.learns != "range":
            with torch.no_grad():
                graph.tensor(self._paths[0]).clamp_(SMALLEST_SCALE, self.largest)

    def penalty(self, graph: Graph) -> Tensor | None:
        """Returns the square of a learned bound, a scalar; None where no bound is learned."""
        return graph.tensor(self._paths[0]).square().sum() if self.learns == "clip" else None

    def found(self, graph: Graph) -> Affine:
        """Returns the trained grid."""
        grid = self.laid.grid
        values = [graph.tensor(path).detach().double() for path in self._paths]
        if self.learns == "step":
            return Affine(grid, float(np.float32(float(values[0]))), self.laid.zero_point)
        if self.learns == "clip":
            return affine(0.0, float(values[0]), grid, self.within)
        ranges = torch.stack(values)
        return affine(float(ranges[:, 0].amin()), float(ranges[:, 1].amax()), grid, self.within)

    def write(self, stored: Graph, found: Affine) -> dict[fx.Node, float]:
        """Writes the grid to the pairs of a quantised graph; returns the scale of each dequantised value."""
        scales: dict[fx.Node, float] = {}
        for name in self.pairs:
            quantize = _find(stored, name)
            for node in (quantize, *quantize.users):
                node.args = (node.args[0], found.scale, found.zero_point, *node.args[3:])
            scales |= dict.fromkeys(quantize.users, found.scale)
        return scales


def activations_of(quantized: Graph, learns: Literal["step", "clip", "range"]) -> list[TrainedActivation]:
    """Returns the activations of a graph that was just quantised, one for all values that share a grid."""
    groups: dict[tuple[Any, ...], list[fx.Node]] = {}
    for node in quantized.program.graph.find_nodes(op="call_function", target=ops.quantize_per_tensor.default):
        if GRID_OF in node.meta:
            groups.setdefault((node.meta[GRID_OF], *node.args[1:]), []).append(node)
    return [_activation(nodes, key, learns) for key, nodes in groups.items()]


def _activation(
    nodes: Sequence[fx.Node], key: tuple[Any, ...], learns: Literal["step", "clip", "range"]
) -> TrainedActivation:
    _, scale, zero, low, high, dtype = key
    bounds = [node.meta[WITHIN] for node in nodes]
    within = max(b[0] for b in bounds), min(b[1] for b in bounds)
    grid = Grid("", dtype, low, high)
    if learns == "clip" and not (zero == low and within[0] == 0):
        learns = "range"  # PACT is for activations without values below 0
    if learns == "step" and grid.bits >= FEW_BITS:
        learns = "range"
    return TrainedActivation(tuple(n.name for n in nodes), Affine(grid, scale, zero), within, learns)


def _fits(bound: float, steps: int) -> float:
    """Returns the largest float32 step with which `steps` steps don't pass a bound."""
    if steps <= 0 or bound == EVERYTHING[1]:
        return EVERYTHING[1]
    step = np.float32(bound / steps)
    while step * np.float32(steps) > bound:
        step = np.nextafter(step, np.float32(0))
    return float(step)


def _find(graph: Graph, name: str) -> fx.Node:
    found: Mapping[str, fx.Node] = {node.name: node for node in graph.program.graph.nodes}
    return found[name]
