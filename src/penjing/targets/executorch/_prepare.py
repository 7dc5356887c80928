"""Prepares a copy of a graph: evaluation mode, integer weights, and ops in the forms for which XNNPACK has kernels."""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from penjing.capabilities import find
from penjing.graph import Graph, fold_batch_norms
from penjing.graph.clips import CLIPS
from penjing.graph.edit.rewriter import Writer, replace
from penjing.graph.ops import node_arguments
from penjing.graph.propagation import resized
from penjing.graph.sources import is_constant
from penjing.targets import _pairs
from penjing.targets._integers import evaluate, store_integer_weights
from penjing.targets._origins import STANDS_FOR

aten = torch.ops.aten
ops = torch.ops.quantized_decomposed
ONE = 2.0**-6  # scale of weights that are 1: 64 steps, which fit into int8 and multiply without rounding
INT8 = (torch.iinfo(torch.int8).min, torch.iinfo(torch.int8).max)
FUSED = frozenset({aten.relu.default, aten.hardtanh.default})  # clips that a layer's kernel computes too
SPLITS = frozenset({aten.chunk.default, aten.split.Tensor, aten.split.sizes, aten.split_with_sizes.default})


def prepared(graph: Graph) -> Graph:
    """Returns a copy of `graph` that exports well and computes the same."""
    ready = fold_batch_norms(graph).eval()
    nodes = ready.program.graph
    _pairs.remove_idle_ops(nodes)
    _pairs.drop_needless_clips(nodes)
    write_out(nodes)
    store_integer_weights(ready)
    _pairs.clip_few_bits(nodes)
    _store_scales(ready)
    _pairs.sign_activations(nodes)
    _take_with_strides(ready)
    _pairs.pair_behind_moves(nodes, find("executorch").placement.same)
    _widen_unread(ready)
    _pairs.pair_before_joins(nodes)
    _pairs.dequantize_per_reader(nodes)
    _store_whole_bytes(nodes)
    return ready.refresh()


def write_out(nodes: fx.Graph) -> None:
    """Replaces ops in place by others that compute the same and that XNNPACK has."""
    for node in list(nodes.nodes):
        if (written_out := _WRITTEN_OUT.get(node.target)) is not None:
            written_out(node)


def _clip(node: fx.Node) -> None:
    """Writes a clip as one of the two that are part of a kernel."""
    bounds = CLIPS[node.target](node)
    if bounds is None or not _is_real(node):
        return
    if bounds == (0.0, math.inf):
        replace(node, _writer(node)(aten.relu.default, node.args[0]))
    elif all(map(math.isfinite, bounds)):
        replace(node, _writer(node)(aten.hardtanh.default, node.args[0], *bounds))


def _mean(node: fx.Node) -> None:
    """Keeps the axes of a mean over height and width, and takes them away behind its pair."""
    x, axes, keeps, dtype = node_arguments(node)[:4]
    spatial = x.meta["val"].dim() == 4 and axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]
    if keeps or not spatial or dtype is not None:
        return
    write = _writer(node)
    kept = write(aten.mean.dim, x, axes, True)
    grids = {reader.args[1:] if reader.target is _pairs.QUANTIZE else None for reader in node.users}
    if len(grids) == 1 and (grid := grids.pop()) is not None:
        kept = _paired(write, kept, grid)
    replace(node, write(aten.flatten.using_ints, kept, 1, -1))


def _squeeze(node: fx.Node) -> None:
    """Writes the removal of axes of size 1 as a reshape."""
    sizes = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
    if sizes.count(-1) <= 1:
        replace(node, _writer(node)(aten.reshape.default, node.args[0], sizes))


def _split(node: fx.Node) -> None:
    """Writes a split as slices."""
    x, axis = node.args[0], node_arguments(node)[2]
    pieces = [piece.shape[axis] for piece in node.meta["val"]]
    if not all(isinstance(size, int) for size in pieces) or any(n.target is not operator.getitem for n in node.users):
        return
    write = _writer(node)
    ends = [sum(pieces[: place + 1]) for place in range(len(pieces))]
    used = {int(taken.args[1]) % len(pieces) for taken in node.users}  # type: ignore[arg-type]
    replace(
        node,
        [
            write(aten.slice.Tensor, x, axis, end - size, end) if place in used else None
            for place, (end, size) in enumerate(zip(ends, pieces, strict=True))
        ],
    )


_WRITTEN_OUT: dict[Any, Callable[[fx.Node], None]] = {
    **dict.fromkeys(CLIPS.keys() - FUSED, _clip),
    aten.mean.dim: _mean,
    aten.squeeze.dim: _squeeze,
    aten.squeeze.dims: _squeeze,
    **dict.fromkeys(SPLITS, _split),
}


def _take_with_strides(graph: Graph) -> None:
    """Writes slices with steps over height or width as depthwise convolutions of one weight that is 1, in place.

    XNNPACK has no such slices. If ExecuTorch ran them itself, they would cut the part that XNNPACK runs in two, and values
    would change their layout on both sides. The products are the values themselves, in integers too.
    """
    for node in list(graph.program.graph.nodes):
        if node.target is not aten.slice.Tensor:
            continue
        x, axis, start, end, step = node_arguments(node)[:5]
        shape = x.meta["val"].shape
        axis %= len(shape)
        if step == 1 or len(shape) != 4 or axis < 2 or not _is_real(x) or not all(map(_is_number, shape[1:])):
            continue
        first, last, _ = slice(start, end).indices(shape[axis])
        if last <= first:
            continue
        write, channels, strides = _writer(node), shape[1], [step if axis == place else 1 for place in (2, 3)]
        if (first, last) != (0, shape[axis]):
            x = write(aten.slice.Tensor, x, axis, first, last)
            if node.args[0].target is _pairs.DEQUANTIZE:
                x = _paired(write, x, node.args[0].args[1:])
        integers = x.target is _pairs.DEQUANTIZE
        path, ones = f"{node.name}_ones", torch.ones(channels, 1, 1, 1)
        graph.set_tensor(path, (ones / ONE).to(torch.int8) if integers else ones, persistent=False)
        weight = write.fetch(path, value=_like(x, graph.tensor(path)))
        if integers:
            weight = write(_pairs.DEQUANTIZE, weight, ONE, 0, *INT8, torch.int8)
        taken = write(aten.conv2d.default, x, weight, None, strides, [0, 0], [1, 1], channels)
        replace(node, _paired(write, taken, x.args[1:]) if integers else taken)


def _paired(write: Writer, value: fx.Node, grid: Any) -> fx.Node:
    return write(_pairs.DEQUANTIZE, write(_pairs.QUANTIZE, value, *grid), *grid)


def _is_number(size: Any) -> bool:
    return isinstance(size, int)


def _is_real(value: fx.Node) -> bool:
    return bool(value.meta["val"].dtype == torch.float32)


def _like(value: fx.Node, tensor: Tensor) -> Tensor:
    """Returns what `meta["val"]` holds of a tensor: its shape and dtype, in the graph's own mode of tensors without data."""
    return resized(value.meta["val"], list(tensor.shape)).to(tensor.dtype)


def _store_scales(graph: Graph) -> None:
    """Stores scales and zero points of weights that the graph computes, in place: the kernels take stored ones alone."""
    for node in list(graph.program.graph.nodes):
        if node.target is not ops.dequantize_per_channel.default:
            continue
        for place in (1, 2):
            given: Any = node.args[place]
            if given.op != "get_attr":
                path = f"{node.name}_{given.name}"
                with torch.no_grad():
                    stored = evaluate(graph, given).contiguous().clone()
                graph.set_tensor(path, stored, persistent=False)
                node.update_arg(place, Writer.before(node).fetch(path, value=given.meta["val"]))


def _widen_unread(graph: Graph) -> None:
    """Stores weights as real numbers, in place, where no integer kernel reads them: another target's plan may ask for them.

    Else ExecuTorch would look for a kernel that widens them in each run, and it has none for all kinds of scales.
    """
    for node in list(graph.program.graph.nodes):
        if not _gives_weight(node) or (_fits_kernels(graph, node) and all(map(_is_integer_layer, node.users))):
            continue
        path = f"{node.name}_wide"
        with torch.no_grad():
            graph.set_tensor(path, evaluate(graph, node).clone(), persistent=False)
        replace(node, Writer.before(node).fetch(path, value=node.meta["val"]))


def _gives_weight(node: fx.Node) -> bool:
    return node.target in _pairs.DEQUANTIZE_ALL and is_constant(node.args[0])


def _fits_kernels(graph: Graph, weight: fx.Node) -> bool:
    """Tells whether a weight has integers without a zero point, and a scale for the tensor or for each output channel."""
    if weight.target is ops.dequantize_per_channel.default:
        fits = weight.args[3] == 0 and not bool(evaluate(graph, weight.args[2]).any())
    else:
        fits = weight.target is _pairs.DEQUANTIZE and weight.args[2] == 0
    return bool(fits) and weight.args[-1] is torch.int8


def _is_integer_layer(node: fx.Node) -> bool:
    """Tells whether a layer becomes an integer kernel: its input and its output, behind a clip or none, are rounded."""
    fits = find("executorch").placement.layers.get(node.target)
    x: Any = node.args[0]
    if fits is None or not fits(node) or x.target is not _pairs.DEQUANTIZE or is_constant(x):
        return False
    readers = list(node.users)
    if len(readers) == 1 and readers[0].target in FUSED:
        readers = list(readers[0].users)
    return len(readers) == 1 and readers[0].target is _pairs.QUANTIZE


def _store_whole_bytes(nodes: fx.Graph) -> None:
    """Lets weights of fewer bits count as int8, as which they are stored: 4-bit kernels want other forms."""
    for node in nodes.nodes:
        if node.target in _pairs.DEQUANTIZE_ALL and is_constant(node.args[0]) and node.args[-1] is torch.int8:
            node.args = (*node.args[:-3], *INT8, torch.int8)


def _writer(node: fx.Node) -> Writer:
    """Returns a writer whose nodes are marked as standing for `node`."""
    return Writer.before(node, meta={STANDS_FOR: node.meta.get(STANDS_FOR, node.name)}, values=True)
