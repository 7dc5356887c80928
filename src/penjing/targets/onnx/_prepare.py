"""Prepares a copy of a graph for the exporter: evaluation mode, integer weights, rewrites of ops that export would spoil."""

import torch
from torch import fx
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

from penjing.graph import Graph, fold_batch_norms
from penjing.graph.edit.rewriter import Writer, insert_behind
from penjing.graph.sources import is_constant
from penjing.targets._integers import store_integer_weights
from penjing.targets._tables import look_up_integers
from penjing.targets.onnx._written_out import write_out

aten = torch.ops.aten
ops = torch.ops.quantized_decomposed
ACTIVATIONS = {ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default}
CLAMPS = {aten.clamp.default, aten.hardtanh.default}


def prepared(graph: Graph) -> Graph:
    """Returns a copy of `graph` that exports well and computes the same."""
    ready = fold_batch_norms(graph).eval()
    store_integer_weights(ready)
    look_up_integers(ready)
    _unsigned_activations(ready.program.graph)
    _clip_few_bits(ready.program.graph)
    _float_bounds(ready.program.graph)
    write_out(ready.program.graph)
    return ready.refresh()


def _unsigned_activations(nodes: fx.Graph) -> None:
    """Shifts the codes of signed activations of up to 8 bits to a range that starts at 0, which changes no real value.

    On x86 the runtime fuses only unsigned activations, and it drops a ReLU only where the range starts at the smallest value
    of the type.
    """
    for node in nodes.nodes:
        if node.target not in ACTIVATIONS or is_constant(node.args[0]):
            continue
        value, scale, zero_point, low, high, dtype = node.args
        if dtype is torch.int8:
            node.args = (value, scale, zero_point - low, 0, high - low, torch.uint8)


def _clip_few_bits(nodes: fx.Graph) -> None:
    """Clips integers that have fewer bits than their type, since the runtime's op uses the full range of the type."""
    for node in list(nodes.nodes):
        if node.target is not ops.quantize_per_tensor.default or is_constant(node.args[0]):
            continue
        low, high, dtype = node.args[3:]
        if (low, high) == (torch.iinfo(dtype).min, torch.iinfo(dtype).max):
            continue
        insert_behind(node, Writer.after(node, meta=node.meta)(aten.clamp.default, node, low, high))


def _float_bounds(nodes: fx.Graph) -> None:
    """Makes both bounds of a clamp floats: the exporter's type promotion fails where one is an int and the other a float."""
    for node in nodes.nodes:
        if node.target in CLAMPS and node.meta["val"].dtype.is_floating_point:
            node.args = (node.args[0], *(float(a) if isinstance(a, int) else a for a in node.args[1:]))
