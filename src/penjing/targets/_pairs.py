"""Rewrites of quantise and dequantise nodes into the forms that converters other than ONNX's recognise.

Each function changes a graph in place and changes no value that the graph computes. Which of them a target needs, and for which
ops, is for that target's lowering to say.
"""

import math
import operator
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import fx
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

from penjing.capabilities import Condition
from penjing.graph.clips import CLIPS, Interval
from penjing.graph.edit.rewriter import Writer, replace
from penjing.graph.sources import is_constant

aten = torch.ops.aten
ops = torch.ops.quantized_decomposed
QUANTIZE, DEQUANTIZE = ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default
DEQUANTIZE_ALL = frozenset({DEQUANTIZE, ops.dequantize_per_channel.default, ops.dequantize_per_channel_group.default})

# In evaluation mode these give their first argument back.
IDLE = frozenset({
    aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default, aten.feature_alpha_dropout.default,
    aten.contiguous.default, aten.clone.default, aten.detach.default, aten.alias.default,
})  # fmt: skip
JOINS = frozenset({aten.cat.default, aten.concat.default, aten.concatenate.default})
# A range starts at the smallest int8 where the same range of uint8 starts at 0.
UINT8_TO_INT8 = -128


def remove_idle_ops(nodes: fx.Graph) -> None:
    """Removes ops that change nothing in evaluation mode, which would stand between an op and its pair."""
    for node in list(nodes.nodes):
        if node.target in IDLE:
            replace(node, node.all_input_nodes[0])


def sign_activations(nodes: fx.Graph) -> None:
    """Shifts the codes of unsigned activations of up to 8 bits into the range of int8, which changes no real value."""
    for node in nodes.nodes:
        if node.target not in (QUANTIZE, DEQUANTIZE) or is_constant(node.args[0]):
            continue
        value, scale, zero_point, low, high, dtype = node.args
        if dtype is torch.uint8:
            shifted = (int(number) + UINT8_TO_INT8 for number in (zero_point, low, high))
            node.args = (value, scale, *shifted, torch.int8)


def drop_needless_clips(nodes: fx.Graph) -> None:
    """Removes clips whose bounds the range of the codes behind them already keeps, such as ReLU where codes start at zero."""
    for node in list(nodes.nodes):
        if not _rounds(node):
            continue
        while (
            (clip := node.args[0]).target in CLIPS and len(clip.users) == 1 and _keeps(node, CLIPS[clip.target](clip))
        ):
            replace(clip, clip.all_input_nodes[0])


def _keeps(quantize: fx.Node, bounds: Interval | None) -> bool:
    """Tells whether both bounds round to an end of the codes or lie beyond it."""
    arguments: Any = quantize.args
    _, scale, zero_point, low, high, _ = arguments
    return bounds is not None and all(
        math.isinf(bound) or beyond(round(bound / scale) + zero_point, end)
        for bound, end, beyond in zip(bounds, (low, high), (operator.le, operator.ge), strict=True)
    )


def clip_few_bits(nodes: fx.Graph) -> None:
    """Clips the values in front of quantise nodes whose codes have fewer bits than their type.

    Kernels use the full range of the type. Both bounds of the clip lie on the grid, so rounding gives the same codes with it.
    Pairs behind ops that move values need no clips, so `pair_behind_moves` comes later.
    """
    for node in list(nodes.nodes):
        if not _rounds(node):
            continue
        value, scale, zero_point, low, high, dtype = node.args
        if (low, high) != (torch.iinfo(dtype).min, torch.iinfo(dtype).max):
            bounds = ((low - zero_point) * scale, (high - zero_point) * scale)
            node.update_arg(0, Writer.before(node, values=True)(aten.hardtanh.default, value, *bounds))


def _rounds(node: fx.Node) -> bool:
    """Tells whether a node rounds an activation."""
    return node.target is QUANTIZE and not is_constant(node.args[0])


def pair_behind_moves(nodes: fx.Graph, moves: Mapping[Any, Condition]) -> None:
    """Inserts a pair behind each op that only moves or selects values of a dequantise node, with that node's own numbers.

    Such an op has the same integers in its output as in its input, but a converter reads that from a pair on either side alone.

    Args:
        nodes: the graph, whose nodes have their `meta["val"]`.
        moves: the ops, each with a condition on the node, as in `Placement.same`. Where an op has several outputs, each of
            them gets a pair.
    """
    for node in list(nodes.nodes):
        source = _moved(node, moves)
        if source is None:
            continue
        grid = source.args[1:]
        if all(reader.target is QUANTIZE and reader.args[1:] == grid for reader in node.users):
            continue
        readers, write = list(node.users), Writer.after(node, values=True)
        restored = write(DEQUANTIZE, write(QUANTIZE, node, *grid), *grid)
        for reader in readers:
            reader.replace_input_with(node, restored)


def _moved(node: fx.Node, moves: Mapping[Any, Condition]) -> fx.Node | None:
    """Returns the dequantise node whose values `node` gives in other places; None where there is none.

    An op that gives several tensors at once is none of these nodes, but each `getitem` that takes one of the tensors is.
    """
    if node.target is operator.getitem:
        op: Any = node.args[0]
    elif isinstance(node.meta.get("val"), list | tuple):
        return None
    else:
        op = node
    if op.target not in moves or not op.all_input_nodes or not moves[op.target](op):
        return None
    source = op.all_input_nodes[0]
    return source if source.target is DEQUANTIZE and not is_constant(source) else None


def pair_before_joins(nodes: fx.Graph, joins: Collection[Any] = JOINS) -> None:
    """Rounds the operands of each concatenation to the numbers behind it, so that its kernel moves integers alone.

    Behind the concatenation they are rounded to these numbers anyway, and a second time changes nothing.
    """
    for node in list(nodes.nodes):
        if node.target not in joins or {reader.target for reader in node.users} != {QUANTIZE}:
            continue
        grids = {reader.args[1:] for reader in node.users}
        if len(grids) > 1:
            continue
        grid = grids.pop()
        for operand in dict.fromkeys(node.all_input_nodes):
            if operand.target is DEQUANTIZE and operand.args[1:] != grid:
                write = Writer.before(node, values=True)
                node.replace_input_with(operand, write(DEQUANTIZE, write(QUANTIZE, operand, *grid), *grid))


def dequantize_per_reader(nodes: fx.Graph) -> None:
    """Gives each reader of a dequantised value a dequantise node of its own.

    A converter that takes dequantise nodes into the kernel that reads them can otherwise cut no part of the graph out.
    """
    for node in list(nodes.nodes):
        if node.target not in DEQUANTIZE_ALL:
            continue
        for reader in list(node.users)[1:]:
            own = Writer.before(node, meta=node.meta)(node.target, *node.args, **node.kwargs)
            reader.replace_input_with(node, own)
