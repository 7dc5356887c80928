"""Finds activations that never change on the calibration data: no range can be chosen for their values on other data.

An input that never changes while others do, such as the mask of unpadded batches, is no fault, and neither is a value that
is computed from such inputs alone: their ranges hold the value that was seen, and 0.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, fx

from penjing.capabilities import Placement
from penjing.errors import PenjingError
from penjing.evidence.statistics import Statistics
from penjing.graph import Graph
from penjing.graph.patterns import module_paths
from penjing.graph.sources import computed_from_inputs
from penjing.quantization.placement.sites import Placed, Site
from penjing.quantization.weights.places import place_of


class ConstantActivations(PenjingError):
    """An activation has the same value for all calibration data."""


class Steady:
    """Tells whether all values in a stream of tensors are equal.

    Attributes:
        value: the first value; None before the first batch.
        varies: whether a different value came later.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.varies = False

    @property
    def kind(self) -> str:
        """See `Memorable`."""
        return "steady"

    def state_dict(self) -> dict[str, Tensor]:
        """See `Memorable`."""
        value = torch.zeros(0) if self.value is None else self.value.reshape(1)
        return {"value": value, "varies": torch.tensor(self.varies)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `Memorable`."""
        self.value, self.varies = state["value"][0] if len(state["value"]) else None, bool(state["varies"])

    def update(self, values: Tensor) -> None:
        """Adds one batch, of any type."""
        if values.numel() and not self.varies:
            self.value = values.flatten()[0].clone() if self.value is None else self.value
            self.varies = bool((values != self.value).any())


def check_vary(
    graph: Graph,
    placed: Placed,
    placement: Placement,
    seen: Mapping[fx.Node, Statistics],
    inputs: Mapping[fx.Node, Steady],
) -> None:
    """Makes sure that every rounded value which is computed from varying inputs varies too.

    Where no input varies, the data are at fault, and every rounded value must vary.

    Args:
        graph: the graph that holds the nodes.
        placed: the values that are rounded.
        placement: the tables with which these were found.
        seen: statistics of all calibration data, by the node that computes the values.
        inputs: for each input of the graph that `seen` lacks, whether it varies.

    Raises:
        ConstantActivations: a value doesn't vary; the message names the first in order of execution, and all that can be
            excluded.
    """
    given = [node for node in graph.program.graph.nodes if node.op == "placeholder"]
    steady = {
        node
        for node in given
        if (seen[node].low == seen[node].high if node in seen else node in inputs and not inputs[node].varies)
    }
    varying = computed_from_inputs(graph.program, without=steady if len(steady) < len(given) else ())
    stuck = [
        site for site in placed.sites if site.grid_of in varying and seen[site.grid_of].low == seen[site.grid_of].high
    ]
    if not stuck:
        return
    first, value = stuck[0].node, seen[stuck[0].grid_of].low
    if first.op == "placeholder":
        where, cause = f"The input '{first.name}'", "the data and how they are read"
    else:
        where, cause = f"The output of '{place_of(_source(first, placement))}'", "the model's weights and the data"
    message = (
        f"{where} is {value:g} everywhere on the calibration data, so there is no range to choose for it: check {cause}. "
        "There may be too little data."
    )
    known = module_paths(graph)
    touched = dict.fromkeys(place for site in stuck for place in _touched(site, placed, placement) if place in known)
    if touched:
        listed = ", ".join(f'"{place}"' for place in touched)
        message += (
            f" If the value is meant to be constant, leave the layers around it in floating point: exclude=[{listed}]."
        )
    raise ConstantActivations(message)


def _touched(site: Site, placed: Placed, placement: Placement) -> Iterator[str]:
    """Yields the places of the integer nodes that compute a value, or read it through ops that pass it on."""
    if (source := _source(site.node, placement)) in placed.integer:
        yield place_of(source)
    passing = [site.node]
    for node in passing:
        for user in node.users:
            if user in placed.integer:
                yield place_of(user)
            elif user.target in placement.same or user.target in placement.clips:
                passing.append(user)


def _source(node: fx.Node, placement: Placement) -> fx.Node:
    """Returns the node in front of a value's clips; the first clip where that node is an input."""
    while node.target in placement.clips and node.all_input_nodes[0].op != "placeholder":
        node = node.all_input_nodes[0]
    return node
