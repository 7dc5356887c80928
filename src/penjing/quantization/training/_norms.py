"""Keeps batch norms while a quantised graph trains, and folds them exactly at the end.

Folding the norms before training would remove what keeps few-bit training stable; folding them within each step needs
corrected statistics (Jacob et al. 2018, arXiv:1712.05877, section 3.2). Neither is needed where each output channel has
scales of its own: `y = γ (s·q·x + b − μ) / √(σ² + ε) + β` has the same integers q, with the scale `s · |γ| / √(σ² + ε)`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from penjing.graph import Graph
from penjing.graph.edit.rewriter import Writer
from penjing.graph.modes import SWITCHES
from penjing.graph.ops import node_arguments

aten = torch.ops.aten


@dataclass(frozen=True)
class Norm:
    """A batch norm right behind a layer; tensors are given by their paths, None where the tensor doesn't exist.

    Attributes:
        weight: path of γ.
        bias: path of β.
        mean: path of the running mean μ.
        variance: path of the running variance σ².
        epsilon: ε.
        layer_bias: path of the layer's bias b.
    """

    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float
    layer_bias: str | None

    def factor(self, graph: Graph) -> Tensor:
        """Returns the factor by which folding multiplies each output channel, `(channels,)`."""
        variance = graph.tensor(self.variance).detach()
        gamma = torch.ones_like(variance) if self.weight is None else graph.tensor(self.weight).detach()
        return gamma / torch.sqrt(variance + self.epsilon)

    def folded_bias(self, graph: Graph) -> Tensor:
        """Returns the bias that the layer has once the norm is folded into it, `(channels,)`."""
        mean = graph.tensor(self.mean).detach()
        beta = torch.zeros_like(mean) if self.bias is None else graph.tensor(self.bias).detach()
        bias = torch.zeros_like(mean) if self.layer_bias is None else graph.tensor(self.layer_bias).detach()
        return (bias - mean) * self.factor(graph) + beta


def folded_norms(graph: Graph, folded: Graph) -> dict[str, fx.Node]:
    """Returns the norms of a float graph that were folded in `folded`, a graph made from it, by their layer's name."""
    left = {node.name for node in folded.program.graph.nodes}
    gone = [n for n in graph.program.graph.nodes if n.target is aten.batch_norm.default and n.name not in left]
    return {norm.args[0].name: norm for norm in gone}


def unfold(trained: Graph, graph: Graph, norms: Mapping[str, fx.Node], layers: Collection[str]) -> dict[str, Norm]:
    """Puts norms back behind some layers, with copies of the float graph's tensors, the layers' biases included.

    Args:
        trained: a copy of the quantised graph; call `refresh()` on it afterwards.
        graph: the float graph.
        norms: the norms of `graph`, by the name of their layer.
        layers: names of the layers whose norms come back.

    Returns:
        The norms that were put back, by the name of their layer.
    """
    nodes = {node.name: node for node in trained.program.graph.nodes}
    return {name: _put_back(trained, graph, nodes[name], norms[name]) for name in layers if name in norms}


def _put_back(trained: Graph, graph: Graph, layer: fx.Node, norm: fx.Node) -> Norm:
    _, gamma, beta, mean, variance, _, momentum, epsilon, cudnn = node_arguments(norm)
    bias = node_arguments(norm.args[0])[2]
    transient = graph.transient()
    paths = [None if node is None else str(node.target) for node in (gamma, beta, mean, variance, bias)]
    for path in paths:
        if path is not None:
            given = graph.tensor(path)
            copied = given.detach().clone()
            tensor = nn.Parameter(copied, given.requires_grad) if isinstance(given, nn.Parameter) else copied
            trained.set_tensor(path, tensor, persistent=path not in transient)
    if bias is None:
        _drop_bias(layer)
    readers = list(layer.users)
    write = Writer.after(layer, on_behalf_of=norm)
    fetched = [None if path is None else write.fetch(path) for path in paths[:4]]
    back = write(aten.batch_norm.default, layer, *fetched, False, momentum, epsilon, cudnn)
    if SWITCHES in norm.meta:
        back.meta[SWITCHES] = norm.meta[SWITCHES]
    for reader in readers:
        reader.replace_input_with(layer, back)
    assert paths[2] is not None and paths[3] is not None
    return Norm(paths[0], paths[1], paths[2], paths[3], float(epsilon), paths[4])


def _drop_bias(layer: fx.Node) -> None:
    if len(layer.args) > 2:
        layer.update_arg(2, None)
    else:
        layer.update_kwarg("bias", None)
