"""Taking units out: their indices go from every tensor, and every constant that counted them is derived again."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from penjing.errors import PenjingError
from penjing.graph import propagation
from penjing.graph.channels.channels import Channels
from penjing.graph.channels.rules import RESIZES, Axis
from penjing.graph.graph import Graph


def remove(graph: Graph, channels: Channels, units: Mapping[int, np.ndarray]) -> Graph:
    """Returns a smaller graph; `graph` stays as it was.

    Args:
        graph: the graph that `channels` was made of.
        channels: its groups.
        units: per group (its position in `channels.groups`), the units to remove, as indices 0 … units − 1, those that
            matter least first.

    One unit more stays, the one that matters most, where a part of a group that an op looks at alone would lose all of its
    units, or where two axes would become equally long that an op tells apart by their sizes.

    Raises:
        PenjingError: a group would lose all of its units.
    """
    gone = _dead(channels, units)
    shared = {id(tensor): tensor for tensor in graph.tensors().values()}  # copied below, without what goes
    small = copy.deepcopy(graph, shared)
    pairs = list(zip(graph.program.graph.nodes, small.program.graph.nodes, strict=True))  # rules may add nodes
    for old, new in pairs:
        if new.target in RESIZES and old not in channels.unlabelled:  # those keep every size, so no constant changes
            _Resizing(
                channels, gone, {new: old}, dict(zip(new.all_input_nodes, old.all_input_nodes, strict=True))
            ).apply(new)
    _shrink_tensors(small, channels, gone)
    for old, new in pairs:
        new.meta["val"] = _shrunk(old.meta.get("val"), channels.labels.get(old), channels.class_of, gone)
    return small.refresh(shapes_known=True)


def kept_indices(
    graph: Graph, channels: Channels, units: Mapping[int, np.ndarray]
) -> dict[str, tuple[np.ndarray | None, ...]]:
    """Returns, for every tensor of a graph by name, which indices of each axis `remove` keeps; None where it keeps all.

    Args:
        graph: the graph that `channels` was made of.
        channels: its groups.
        units: as for `remove`.

    Raises:
        PenjingError: a group would lose all of its units.
    """
    found = {}
    for name, masks in _kept(graph, channels, _dead(channels, units)).items():
        found[name] = tuple(None if mask.all() else np.flatnonzero(mask) for mask in masks)
    return found


def _dead(channels: Channels, units: Mapping[int, np.ndarray]) -> np.ndarray:
    """Returns which classes of labels go."""
    rank = np.full(int(channels.class_of.max()) + 1, -1)  # the higher, the more a class that goes matters; -1 stays
    for position, indices in units.items():
        group = channels.groups[position]
        if len(np.unique(indices)) >= group.units:
            raise PenjingError(f"All {group.units} units of {group.name} would go; at least one must stay.")
        rank[group.classes[indices]] = np.arange(len(indices))

    def keep_one_more(axis: np.ndarray) -> None:
        classes = channels.class_of[axis]
        rank[classes[rank[classes].argmax()]] = -1

    for axis in {id(axis): axis for axis in _axes(channels.labels.values()) if axis.size}.values():
        if (rank[channels.class_of[axis]] >= 0).all():
            keep_one_more(axis)
    for longer, shorter in channels.unequal:
        left, other = ((rank[channels.class_of[axis]] < 0).sum() for axis in (longer, shorter))
        if left < longer.size and left == other:
            keep_one_more(longer)
    return rank >= 0


def _axes(values: Iterable[Any]) -> Iterator[np.ndarray]:
    """Gives every axis of labels in what may be nested lists of `Axes`."""
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif value is not None:
            yield from _axes(value)


def _shrunk(value: Any, labels: Any, class_of: np.ndarray, gone: np.ndarray) -> Any:
    """Returns a node's `meta["val"]` as it is without the dead labels."""
    if not labels:
        return value
    if isinstance(value, list | tuple):
        return type(value)(_shrunk(one, axes, class_of, gone) for one, axes in zip(value, labels, strict=True))
    kept = [None if axis is None else int((~gone[class_of[axis]]).sum()) for axis in labels]
    shape = [
        size if count is None else count if isinstance(size, int) else size * count // axis.size
        for axis, count, size in zip(labels, kept, value.shape, strict=True)
    ]
    return value if shape == list(value.shape) else propagation.resized(value, shape)


class _Resizing:
    """Answers what resize rules ask (see `rules.table.Resizing`), in terms of the graph before surgery."""

    def __init__(
        self,
        channels: Channels,
        gone: np.ndarray,
        node: dict[fx.Node, fx.Node],
        inputs: dict[fx.Node, fx.Node],
    ) -> None:
        self._channels = channels
        self._gone = gone
        self._before = {**node, **inputs}

    def apply(self, node: fx.Node) -> None:
        RESIZES[node.target](self, node)

    def _labels(self, node: fx.Node, axis: int, output: int) -> Axis:
        axes = self._channels.labels[self._before[node]]
        axes = axes[output] if isinstance(axes, list) else axes
        return axes[axis] if axes else None

    def kept(self, node: fx.Node, axis: int, output: int = 0) -> np.ndarray | None:
        labels = self._labels(node, axis, output)
        return None if labels is None or self.period(node, axis) else ~self._gone[self._channels.class_of[labels]]

    def count(self, node: fx.Node, axis: int, output: int = 0) -> int | None:
        kept = self.kept(node, axis, output)
        return None if kept is None else int(kept.sum())

    def period(self, node: fx.Node, axis: int) -> tuple[int, int] | None:
        value = self._before[node].meta["val"]
        labels = self._labels(node, axis, 0) if isinstance(value, torch.Tensor) else None
        size = None if labels is None else value.shape[axis]
        if labels is None or not isinstance(size, torch.SymInt) or not size.node.expr.free_symbols:
            return None
        return labels.size, int((~self._gone[self._channels.class_of[labels]]).sum())

    def added(self, node: fx.Node, axis: int) -> tuple[int, int]:
        source = next(n for n in node.all_input_nodes)
        inner, outer = self._labels(source, axis, 0), self.kept(node, axis)
        widths = list(node.args[1])  # type: ignore[arg-type]  # its own: widths may be nodes
        position = 2 * (len(self._before[node].meta["val"].shape) - 1 - axis)
        before, behind = widths[position : position + 2]
        if outer is None or inner is None:
            return before, behind
        return int(outer[:before].sum()), int(outer[before + inner.size :].sum())


def _kept(graph: Graph, channels: Channels, gone: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Returns for every tensor, by name, which indices of each axis stay: booleans."""
    tensors = graph.tensors()
    axes_of = {id(tensors[name]): axes for name, axes in channels.tensors.items()}
    return {
        name: [
            ~gone[channels.class_of[labels]] if labels is not None else np.ones(n, bool)
            for labels, n in zip(axes_of.get(id(tensor), (None,) * tensor.dim()), tensor.shape, strict=True)
        ]
        for name, tensor in tensors.items()
    }


def _shrink_tensors(graph: Graph, channels: Channels, gone: np.ndarray) -> None:
    """Replaces every tensor (and mask) by one of its own, without the indices of dead labels; tied tensors stay tied."""
    tensors, transient = graph.tensors(), graph.transient()
    kept = _kept(graph, channels, gone)
    replacements: dict[int, torch.Tensor] = {}
    for name, tensor in tensors.items():
        keep = kept[name]
        if id(tensor) not in replacements:
            smaller = _select(tensor.detach(), keep)
            is_parameter = isinstance(tensor, nn.Parameter)
            replacements[id(tensor)] = nn.Parameter(smaller, tensor.requires_grad) if is_parameter else smaller
        graph.set_tensor(name, replacements[id(tensor)], persistent=name not in transient)
        if name in graph.masks:
            graph.masks[name] = _select(graph.masks[name], keep)


def _select(tensor: torch.Tensor, keep: list[np.ndarray]) -> torch.Tensor:
    """Returns a copy with the kept indices of each axis."""
    for axis, mask in enumerate(keep):
        if not mask.all():
            tensor = tensor.index_select(axis, torch.from_numpy(np.flatnonzero(mask)).to(tensor.device))
    return tensor.clone() if all(mask.all() for mask in keep) else tensor
