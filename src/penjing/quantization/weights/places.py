"""The layers and tables whose weights can be quantised, by their places: the module paths under which the user knows them."""

from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph import Graph
from penjing.graph.ops import LAYERS, LOOKUPS, RECURRENT, RECURRENT_PARAMETERS


def weights_by_place(graph: Graph) -> dict[str, list[Tensor]]:
    """Returns the weights of all convolutions, linear and recurrent layers and embeddings of a float graph, by their place."""
    found: dict[str, dict[int, Tensor]] = {}
    for layer, paths in _layers(graph):
        found.setdefault(place_of(layer), {}).update((id(graph.tensor(path)), graph.tensor(path)) for path in paths)
    return {place: list(weights.values()) for place, weights in found.items() if weights}


def modules_by_place(graph: Graph) -> dict[str, str]:
    """Returns the path of the module in which each of these layers is computed ("" for the network itself), by place."""
    return {place_of(layer): layer.meta.get("module", "") for layer, _ in _layers(graph)}


def _layers(graph: Graph) -> list[tuple[fx.Node, list[str]]]:
    nodes = graph.program.graph.nodes
    layers = [node for node in nodes if node.target in LAYERS | LOOKUPS and _is_fetched(weight_argument(node))]
    recurrent = [(node, matrices(graph, node)) for node in nodes if node.target in RECURRENT]
    return [*((node, [weight_of(node)]) for node in layers), *recurrent]


def _is_fetched(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.op == "get_attr"


def weight_of(layer: fx.Node) -> str:
    """Returns the name of the weight or table that a layer, not yet quantised, reads."""
    return str(weight_argument(layer).target)


def weight_argument(layer: fx.Node) -> Any:
    """Returns the argument of a layer that is its weight, or of an embedding that is its table."""
    return layer.args[weight_position(layer)]


def weight_position(layer: fx.Node) -> int:
    """Returns the position of the weight or table among the arguments of a layer or an embedding."""
    return 0 if layer.target in LOOKUPS else 1


def matrices(graph: Graph, recurrent: fx.Node) -> list[str]:
    """Returns the names of the matrices that a recurrent layer, not yet quantised, reads."""
    given: Any = recurrent.args[RECURRENT_PARAMETERS]
    paths = [str(parameter.target) for parameter in given if parameter.op == "get_attr"]
    return [path for path in paths if graph.tensor(path).dim() > 1 and graph.tensor(path).dtype == torch.float32]


def place_of(node: fx.Node) -> str:
    """Returns the place of a layer, not yet quantised: the path of the module that holds its weight, else of its module."""
    weight: Any = weight_argument(node) if len(node.args) > 1 else None
    if node.target in RECURRENT:
        parameters: Any = node.args[RECURRENT_PARAMETERS]
        weight = parameters[0]
    owner = str(weight.target).rpartition(".")[0] if _is_fetched(weight) else ""
    return owner or node.meta.get("module") or node.name
