"""Gives the inputs of layers an axis of samples where they have none.

PyTorch's convolutions accept a single sample `(channels, …)` as well as `(samples, channels, …)`, and linear layers accept
`(features,)`. The rest of the package can rely on samples on a layer's first axis, and on channels where batches have them.
"""

from typing import Any

import torch
from torch import fx

from penjing.graph import Graph
from penjing.graph.edit.rewriter import Writer, insert_behind
from penjing.graph.ops import LAYERS

aten = torch.ops.aten


def add_sample_axes(graph: Graph) -> Graph:
    """Writes `squeeze(layer(unsqueeze(x)))` for layers without an axis of samples; values stay. Returns the same graph."""
    bare = [node for node in graph.program.graph.nodes if node.target in LAYERS and _is_bare(node)]
    for node in bare:
        widened = Writer.before(node)(aten.unsqueeze.default, node.args[0], 0)
        insert_behind(node, Writer.after(node)(aten.squeeze.dim, node, 0))
        node.update_arg(0, widened)
    return graph.refresh() if bare else graph


def _is_bare(layer: fx.Node) -> bool:
    """Tells whether a layer's input has only axes of channels and positions."""
    x: Any = layer.args[0]
    weight: Any = layer.args[1]
    positions = weight.meta["val"].dim() - 2  # none in a linear layer
    return bool(x.meta["val"].dim() == positions + 1)
