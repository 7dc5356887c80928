"""The layers that can be factorised, embeddings among them: each with its weight (out, in, *kernel), and why it is left alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from penjing.evidence.windows import each
from penjing.graph import Graph
from penjing.graph.ops import CONVOLUTIONS, LAYERS, node_arguments
from penjing.graph.patterns import matches
from penjing.graph.weights import Weight, weights

aten = torch.ops.aten


@dataclass(frozen=True)
class Layer:
    """A weight that layers multiply by.

    Attributes:
        weight: the weight; its `shape` is (out, in, *kernel).
        nodes: the nodes of the layers that multiply by it.
        reason: why it is left alone, a code of `penjing.report`; "" if it can be factorised.
    """

    weight: Weight
    nodes: tuple[fx.Node, ...]
    reason: str = ""

    @property
    def is_table(self) -> bool:
        """Whether the weight is a table that embeddings look up in: (width, rows) instead of (out, in)."""
        return self.nodes[0].target is aten.embedding.default

    @property
    def path(self) -> str:
        """The path of the layer's module."""
        return self.weight.place

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes (out, in, *kernel)."""
        return self.weight.shape

    @property
    def stride(self) -> tuple[int, ...]:
        """The stride along each axis of the kernel."""
        if not self.shape[2:]:
            return ()
        return tuple(each(node_arguments(self.nodes[0])[3], len(self.shape) - 2))

    def matrix(self, graph: Graph) -> Tensor:
        """Returns the weight's values (out, in, *kernel) in double precision, on the processor."""
        return self.weight.view(graph.tensor(self.weight.name).detach()).double().cpu()


def layers(graph: Graph, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> dict[str, Layer]:
    """Returns all layers by path, in the order in which the graph computes them.

    Args:
        graph: a captured graph.
        include: patterns of module paths; if given, only their layers.
        exclude: patterns of module paths whose layers are left out.

    Raises:
        PenjingError: a pattern matches no module.
    """
    readers: dict[int, list[fx.Node]] = {}
    order: dict[int, int] = {}
    for position, node in enumerate(graph.program.graph.nodes):
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                key = id(graph.tensor(str(source.target)))
                readers.setdefault(key, []).append(node)
                order.setdefault(key, position)
    multiplied = weights(graph, include=include, exclude=exclude)
    tables = _tables(graph, readers, include, exclude)
    found = [
        (order[key], Layer(weight, tuple(readers[key]), _reason(graph, weight, readers[key])))
        for weight in (*multiplied, *tables)
        if (key := id(graph.tensor(weight.name))) in readers
    ]
    return {layer.path: layer for _, layer in sorted(found, key=lambda one: one[0])}


def _tables(
    graph: Graph, readers: Mapping[int, Sequence[fx.Node]], include: Sequence[str], exclude: Sequence[str]
) -> list[Weight]:
    """Returns the tables that embeddings, and nothing else, look up in; a table that is a layer's weight, too, stays."""
    found: dict[int, Weight] = {}
    for name, tensor in graph.tensors().items():
        path = name.rpartition(".")[0]
        nodes = readers.get(id(tensor), ())
        looked_up = bool(nodes) and all(node.target is aten.embedding.default for node in nodes)
        if looked_up and tensor.dim() == 2 and (not include or matches(path, include)) and not matches(path, exclude):
            rows, width = tensor.shape
            found.setdefault(id(tensor), Weight(name, (1, 0), (width, rows)))
    return list(found.values())


def _reason(graph: Graph, weight: Weight, nodes: Sequence[fx.Node]) -> str:
    """Returns why a weight is left alone: a code that `penjing.report` has words for."""
    tensor = graph.tensor(weight.name)
    if all(node.target is aten.embedding.default for node in nodes):
        return "" if tensor.dtype.is_floating_point else "dtype"
    plain = all(node.target in LAYERS and _is_weight(graph, node, tensor) for node in nodes)
    if not plain:
        return "kind"
    if any(node.target in CONVOLUTIONS and int(node_arguments(node)[6]) > 1 for node in nodes):
        return "grouped"
    if len({repr(node_arguments(node)[3:]) for node in nodes}) > 1:
        return "geometries"
    if not tensor.dtype.is_floating_point:
        return "dtype"
    return ""


def _is_weight(graph: Graph, node: fx.Node, tensor: Tensor) -> bool:
    """Tells whether a layer multiplies by the tensor and doesn't read it otherwise."""
    _, weight, bias = node_arguments(node)[:3]
    return (
        isinstance(weight, fx.Node)
        and weight.op == "get_attr"
        and graph.tensor(str(weight.target)) is tensor
        and not (isinstance(bias, fx.Node) and bias.op == "get_attr" and graph.tensor(str(bias.target)) is tensor)
    )


def size(shape: Sequence[int]) -> int:
    """Returns the number of a tensor's values."""
    return math.prod(shape)
