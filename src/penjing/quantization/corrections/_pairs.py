"""Finds layers whose output channels may be scaled if the layers that read these channels are scaled back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from penjing.graph import Graph
from penjing.graph.clips import CLIPS
from penjing.graph.ops import LAYERS, node_arguments
from penjing.quantization.corrections._side_by_side import RoundedLayer

aten = torch.ops.aten


@dataclass(frozen=True)
class ReadingLayer:
    """A layer that reads the channels.

    Attributes:
        layer: the reading layer.
        repeats: the number of the layer's input features that come from each channel: more than 1 behind a flatten.
    """

    layer: RoundedLayer
    repeats: int


@dataclass
class LayerAndReaders:
    """A layer and the only layers that read its output, through ops for which f(s·x) = s·f(x) for each channel's s > 0.

    Attributes:
        first: the layer whose output channels are scaled.
        readers: the layers that read these channels.
        bounds: bounds, other than 0 and infinity, of clips on the way: f(s·x) = s·f(x) holds only while no value reaches them.
        rectified: whether a clip at 0 is on the way.
        shifts: whether f(x − c) = f(x) − c, too, as long as x ≥ c ≥ 0, and c reaches the readers at every position.
    """

    first: RoundedLayer
    readers: list[ReadingLayer] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)
    rectified: bool = False
    shifts: bool = True


class Blocked(Exception):
    """Why a layer's channels can't be scaled."""


def find_pairs(graph: Graph) -> tuple[list[LayerAndReaders], dict[str, str]]:
    """Returns all pairs in order of execution, and, by its place, why each other layer has no pair."""
    pairs, reasons = [], {}
    tied = {id(graph.tensor(path)) for path in graph.ties()}
    for node in graph.program.graph.nodes:
        if node.target not in LAYERS:
            continue
        try:
            pair = LayerAndReaders(scalable(graph, node, tied))
            _follow(graph, node, 1, pair, tied)
            pairs.append(pair)
        except Blocked as reason:
            reasons[_name(node)] = str(reason)
    return pairs, reasons


def _name(node: fx.Node) -> str:
    weight: Any = node.args[1]
    return (str(weight.target).rpartition(".")[0] if weight.op == "get_attr" else "") or node.name


def scalable(graph: Graph, node: fx.Node, tied: set[int]) -> RoundedLayer:
    """Returns a node as a layer; raises `Blocked` where something else reads its weight or bias."""
    weight, bias = node_arguments(node)[1:3]
    for tensor in (weight, bias):
        if tensor is None:
            continue
        if tensor.op != "get_attr":
            raise Blocked(f"the weight or bias of '{_name(node)}' is computed")
        if len(tensor.users) > 1 or id(graph.tensor(str(tensor.target))) in tied:
            raise Blocked(f"'{tensor.target}' is used more than once")
    return RoundedLayer(node, str(weight.target), None if bias is None else str(bias.target))


def _follow(graph: Graph, node: fx.Node, repeats: int, pair: LayerAndReaders, tied: set[int]) -> None:
    """Adds the layers that read `node`, directly or through ops that a scale passes."""
    readers = [user for user in node.users if user.target is not aten.sym_size.int]
    if not readers:
        raise Blocked("nothing reads its output")
    for user in readers:
        if user.target in LAYERS and user.args[0] is node:
            layer = scalable(graph, user, tied)
            if not _reads_channels(pair.first.node, node, user):
                raise Blocked(f"'{user.name}' takes its channels for positions")
            pair.readers.append(ReadingLayer(layer, repeats))
            pair.shifts &= not _pads(user)
            continue
        if user.target in CLIPS:
            _clip(user, pair)
        elif user.target not in BETWEEN or user.args[0] is not node or not BETWEEN[user.target](user, pair):
            raise Blocked(f"'{user.name}' reads its output" if user.op != "output" else "it is an output")
        _follow(graph, user, repeats * _widened(node, user), pair, tied)


def _reads_channels(first: fx.Node, value: fx.Node, reader: fx.Node) -> bool:
    """Tells whether the features that `reader` sums over are the channels of `first`, still separate in `value`."""
    linear, flat = aten.linear.default, value.meta["val"].dim() == 2
    if reader.target is linear:
        return flat or first.target is linear
    return not flat and first.target is not linear


def _pads(layer: fx.Node) -> bool:
    """Tells whether a layer pads its input with zeros, which a shift of the input doesn't move."""
    if layer.target is aten.linear.default:
        return False
    padding = node_arguments(layer)[4]
    return padding != "valid" if isinstance(padding, str) else any(padding)


def _clip(node: fx.Node, pair: LayerAndReaders) -> None:
    bounds = CLIPS[node.target](node)
    if bounds is None or not bounds[0] <= 0 <= bounds[1]:
        raise Blocked(f"'{node.name}' clips its output between bounds that don't hold 0")
    pair.rectified |= bounds[0] == 0
    pair.shifts &= bounds[0] == 0
    pair.bounds += [bound for bound in bounds if bound != 0 and math.isfinite(bound)]


def _widened(before: fx.Node, after: fx.Node) -> int:
    """Returns the number of features that a flatten makes of each channel."""
    old, new = before.meta["val"], after.meta["val"]
    return int(new.shape[1]) // int(old.shape[1]) if after.target in FLATTENS else 1


# Ops that may stand between the layers of a pair. Each condition tells whether the op keeps channels apart, and notes in the
# pair whether a shift passes the op.


def _alike(node: fx.Node, pair: LayerAndReaders) -> bool:
    return True


def _leaky(node: fx.Node, pair: LayerAndReaders) -> bool:
    pair.rectified = True  # a ReLU isn't linear at 0, but shifts values that stay above 0
    return bool(node_arguments(node)[1] >= 0)


def _has_channels(node: fx.Node) -> bool:
    """Tells whether a value has positions behind the channel axis; a linear layer's output has none."""
    source: Any = node.args[0]
    while source.target not in LAYERS:
        source = source.args[0]
    return source.target is not aten.linear.default and node.args[0].meta["val"].dim() > 2  # type: ignore[union-attr]


def _pool(node: fx.Node, pair: LayerAndReaders) -> bool:
    return _has_channels(node)


def _average(node: fx.Node, pair: LayerAndReaders) -> bool:
    padding = node_arguments(node)[3]
    pair.shifts &= not any(padding if isinstance(padding, list | tuple) else [padding])
    return _has_channels(node)


def _mean(node: fx.Node, pair: LayerAndReaders) -> bool:
    axes, rank = node_arguments(node)[1], node.args[0].meta["val"].dim()  # type: ignore[union-attr]
    return _has_channels(node) and axes is not None and all(axis % rank >= 2 for axis in axes)


def _pad(node: fx.Node, pair: LayerAndReaders) -> bool:
    arguments = node_arguments(node)
    pair.shifts = False
    zeros = arguments[2] in (None, 0) or (arguments[2] == "constant" and arguments[3] in (None, 0))
    rank = node.args[0].meta["val"].dim()  # type: ignore[union-attr]
    return _has_channels(node) and zeros and len(arguments[1]) <= 2 * (rank - 2)


def _flatten(node: fx.Node, pair: LayerAndReaders) -> bool:
    old, new = node.args[0].meta["val"].shape, node.meta["val"].shape  # type: ignore[union-attr]
    whole = all(isinstance(size, int) for size in old[1:])
    return (
        len(old) >= 2
        and len(new) == 2
        and whole
        and new[1] == math.prod(old[1:])
        and (len(old) == 2 or _has_channels(node))
    )


FLATTENS = frozenset({aten.flatten.using_ints, aten.reshape.default, aten.squeeze.dims, aten.squeeze.dim})
BETWEEN: Mapping[Any, Callable[[fx.Node, LayerAndReaders], bool]] = {
    aten.leaky_relu.default: _leaky,
    aten.dropout.default: _alike,
    aten.feature_dropout.default: _alike,
    aten.contiguous.default: _alike,
    aten.clone.default: _alike,
    aten.max_pool1d.default: _pool,
    aten.max_pool2d.default: _pool,
    aten.max_pool3d.default: _pool,
    aten.adaptive_avg_pool1d.default: _pool,
    aten.adaptive_avg_pool2d.default: _pool,
    aten.adaptive_avg_pool3d.default: _pool,
    aten.avg_pool1d.default: _average,
    aten.avg_pool2d.default: _average,
    aten.avg_pool3d.default: _average,
    aten.mean.dim: _mean,
    aten.upsample_nearest2d.vec: _pool,
    aten.upsample_bilinear2d.vec: _pool,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _pad,
    **dict.fromkeys(FLATTENS, _flatten),
}
