"""Batch norms folded into the convolutions and linears before them, as every deployment path wants them."""

import copy

import torch
from torch import Tensor, fx, nn

from penjing.graph.edit.rewriter import Writer, replace, set_bias
from penjing.graph.graph import Graph
from penjing.graph.ops import LAYERS, node_arguments

aten = torch.ops.aten


def fold_batch_norms(graph: Graph) -> Graph:
    """Returns a graph in evaluation mode where each batch norm right behind a convolution or linear is part of it.

    `y = γ (w·x + b − μ) / √(σ² + ε) + β` becomes a product with `w γ/√(σ² + ε)` and one bias (Jacob et al., 2018).
    A batch norm elsewhere (before a convolution, or behind one whose output or weight is used twice) stays.
    """
    folded = copy.deepcopy(graph).eval()
    for node in list(folded.program.graph.nodes):
        if node.target is aten.batch_norm.default and _can_fold(node):
            _fold(folded, node)
    return folded.refresh(shapes_known=True)


def _can_fold(norm: fx.Node) -> bool:
    source = norm.args[0]
    uses_batch_statistics = norm.args[5]
    if uses_batch_statistics or source.target not in LAYERS or len(source.users) > 1:
        return False
    if source.target is aten.linear.default and norm.meta["val"].dim() != 2:
        return False  # the norm's channel axis is not the linear's feature axis
    weight, bias = node_arguments(source)[1:3]
    constants = [n for n in (weight, bias) if n is not None]
    return all(n.op == "get_attr" and len(n.users) == 1 for n in constants)


def _fold(graph: Graph, norm: fx.Node) -> None:
    layer = norm.args[0]
    _, gamma, beta, mean, variance, _, _, epsilon, _ = norm.args
    weight_node, bias_node = node_arguments(layer)[1:3]
    weight = graph.tensor(weight_node.target)
    bias = graph.tensor(bias_node.target) if bias_node is not None else torch.zeros_like(weight[:, 0].flatten(1)[:, 0])

    def value(node: fx.Node | None, default: float) -> Tensor:
        return graph.tensor(str(node.target)) if node is not None else torch.full_like(bias, default)

    with torch.no_grad():
        scale = value(gamma, 1.0) / torch.sqrt(value(variance, 1.0) + epsilon)
        new_weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        new_bias = (bias - value(mean, 0.0)) * scale + value(beta, 0.0)
    graph.set_tensor(weight_node.target, nn.Parameter(new_weight, weight.requires_grad))
    if bias_node is None:
        path = weight_node.target.removesuffix("weight") + "bias"
        graph.set_tensor(path, nn.Parameter(new_bias, weight.requires_grad))
        set_bias(layer, Writer.before(layer).fetch(path, mean.meta["val"]))  # shaped like the mean
    else:
        graph.set_tensor(bias_node.target, nn.Parameter(new_bias, bias.requires_grad))
    replace(norm, layer)
