"""Writes a layer's bias, and gives one to a layer that has none."""

import torch
from torch import Tensor, nn

from penjing.graph import Graph
from penjing.graph.normalize import node_arguments
from penjing.graph.propagation import resized
from penjing.quantize.corrections._side_by_side import Layer


def add_to_biases(graph: Graph, layers: list[Layer], values: Tensor) -> None:
    """Adds `values`, `(channels,)`, to the one bias that all of `layers` share, or gives them one.

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
    dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32  # codes are integers
    trained = weight.requires_grad or not isinstance(weight, nn.Parameter)
    graph.set_tensor(path, nn.Parameter(values.to(weight.device, dtype), trained))
    for layer in layers:
        with graph.program.graph.inserting_before(layer.node):
            bias_node = graph.program.graph.get_attr(path)
        bias_node.meta = {"module": layer.node.meta.get("module", ""), "source": layer.node.meta.get("source", "")}
        bias_node.meta["val"] = resized(node_arguments(layer.node)[1].meta["val"], [len(values)])
        arguments = list(layer.node.args)
        if len(arguments) > 2:
            layer.node.update_arg(2, bias_node)
        elif "bias" in layer.node.kwargs:
            layer.node.update_kwarg("bias", bias_node)
        else:
            layer.node.args = (*arguments, bias_node)
