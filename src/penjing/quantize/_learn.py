"""Learns the rounding of one layer after the other, with the layers before it rounded already."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from penjing.graph import Graph
from penjing.graph.normalize import node_arguments
from penjing.quantize._clips import EVERYTHING, Interval
from penjing.quantize._placement import Placed, Placement
from penjing.quantize._weights import Weight, set_integers
from penjing.quantize.grids import Laid
from penjing.quantize.rounding import Collector, Layer, Rounding

aten = torch.ops.aten


def learn_rounding(
    graph: Graph,
    reference: Graph,
    data: Any,
    weights: Sequence[Weight],
    bounds: Mapping[fx.Node, Interval],
    rounding: Rounding,
    number: int | None,
    generator: torch.Generator,
) -> None:
    """Moves every weight of an integer grid to the integer that was learned for it.

    A weight that several layers share is learned where it is read first.

    Args:
        graph: quantised to nearest; its weights are changed.
        reference: the float graph that it was made of.
        data: calibration data.
        weights: those of `graph`, in order of execution.
        bounds: of the clip behind each layer that has one.
        rounding: a learned one from `roundings`.
        number: behind its name.
        generator: of its random numbers.
    """
    learned = [weight for weight in weights if isinstance(weight.laid, Laid)]
    collector = Collector(graph, reference, data, [weight.layers[0] for weight in learned], generator)
    for weight in learned:
        node, laid = weight.layers[0], weight.laid
        assert isinstance(laid, Laid)
        arguments, parameter = node_arguments(node), graph.tensor(weight.path).detach()
        bias = arguments[2]
        layer = Layer(
            real=weight.choice.grain.rows(parameter) / laid.scale[:, None],
            laid=laid,
            outputs=len(parameter),
            groups=1 if node.target is aten.linear.default else arguments[6],
            bias=graph.tensor(str(bias.target)).detach()
            if isinstance(bias, fx.Node) and bias.op == "get_attr"
            else None,
            bounds=bounds.get(node, EVERYTHING),
        )
        integers = rounding(layer, collector.collect(node), generator, number)
        set_integers(graph, weight, integers + laid.zero_point[:, None])


def bounds_of(placed: Placed, placement: Placement) -> dict[fx.Node, Interval]:
    """Returns the bounds of the clips that stand right behind layers."""
    found = {}
    for site in placed.sites:
        node: Any = site.node
        while node.target in placement.clips:
            node = node.args[0]
        if node in placed.layers:
            found[node] = site.within
    return found
