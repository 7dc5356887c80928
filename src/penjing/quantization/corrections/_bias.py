"""Writes a layer's bias, and gives one to a layer that has none."""

import torch
from torch import Tensor, nn

from penjing.graph import Graph
from penjing.graph.edit.rewriter import Writer, set_bias
from penjing.graph.ops import node_arguments
from penjing.graph.propagation import resized
from penjing.quantization.corrections._side_by_side import RoundedLayer


def add_to_biases(graph: Graph, layers: list[RoundedLayer], values: Tensor) -> None:
    """Adds `values`, `(channels,)`, to the bias that all of `layers` share; layers without a bias get one.

    The caller refreshes the graph.
    """
    weight, bias_node = graph.tensor(layers[0].weight), node_arguments(layers[0].node)[2]  # it may have got one since
    if bias_node is not None:
        bias = graph.tensor(str(bias_node.target))
        with torch.no_grad():
            bias += values.to(bias)
        return
    owner, dot, name = layers[0].weight.rpartition(".")
    path = f"{owner}{dot}bias"
    path = f"{owner}{dot}{name}_bias" if path in graph.tensors() else path
    dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32  # a weight stored as integer codes
    trained = weight.requires_grad or not isinstance(weight, nn.Parameter)
    graph.set_tensor(path, nn.Parameter(values.to(weight.device, dtype), trained))
    for layer in layers:
        value = resized(node_arguments(layer.node)[1].meta["val"], [len(values)])
        set_bias(layer.node, Writer.before(layer.node).fetch(path, value))
