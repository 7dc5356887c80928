"""Layers that read a single sample without an axis for it get one of size 1.

PyTorch's convolutions take `(channels, …)` beside `(samples, channels, …)`, and linear layers take `(features,)`. Everything
behind this file may rely on samples being on a layer's first axis and its channels where they are with samples.
"""

from typing import Any

import torch
from torch import fx

from penjing.graph import Graph
from penjing.graph.edit.rewriter import Writer, insert_behind
from penjing.graph.ops import LAYERS

aten = torch.ops.aten


def add_sample_axes(graph: Graph) -> Graph:
    """Writes `squeeze(layer(unsqueeze(x)))` for a layer without an axis for samples; the values stay. Returns the graph."""
    bare = [node for node in graph.program.graph.nodes if node.target in LAYERS and _is_bare(node)]
    for node in bare:
        widened = Writer.before(node)(aten.unsqueeze.default, node.args[0], 0)
        insert_behind(node, Writer.after(node)(aten.squeeze.dim, node, 0))
        node.update_arg(0, widened)
    return graph.refresh() if bare else graph


def _is_bare(layer: fx.Node) -> bool:
    """Tells whether a layer's input has no axis but for channels and positions."""
    x: Any = layer.args[0]
    weight: Any = layer.args[1]
    positions = weight.meta["val"].dim() - 2  # none in a linear layer
    return bool(x.meta["val"].dim() == positions + 1)
