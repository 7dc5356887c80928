"""Taking units out: their indices go from every tensor, and every constant that counted them is derived again."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from penjing.errors import PenjingError
from penjing.graph import propagation
from penjing.graph.channels import Channels
from penjing.graph.graph import Graph
from penjing.graph.rules import RESIZES, Axis


def remove(graph: Graph, channels: Channels, units: Mapping[int, np.ndarray]) -> Graph:
    """Returns a smaller graph; `graph` stays as it was.

    Args:
        graph: the graph that `channels` was made of.
        channels: its groups.
        units: per group (its position in `channels.groups`), the units to remove, as indices 0 … units − 1.

    Raises:
        PenjingError: a group would lose all of its units.
    """
    gone = np.zeros(int(channels.class_of.max()) + 1, bool)
    for position, indices in units.items():
        group = channels.groups[position]
        if len(np.unique(indices)) >= group.units:
            raise PenjingError(f"All {group.units} units of {group.name} would go; at least one must stay.")
        gone[group.classes[indices]] = True
    small = copy.deepcopy(graph)
    pairs = list(zip(graph.program.graph.nodes, small.program.graph.nodes, strict=True))  # rules may add nodes
    for old, new in pairs:
        if new.target in RESIZES:
            _Resizing(
                channels, gone, {new: old}, dict(zip(new.all_input_nodes, old.all_input_nodes, strict=True))
            ).apply(new)
    _shrink_tensors(small, channels, gone)
    for old, new in pairs:
        new.meta["val"] = _shrunk(old.meta.get("val"), channels.labels.get(old), channels.class_of, gone)
    return small.refresh(shapes_known=True)


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
        self, channels: Channels, gone: np.ndarray, node: dict[fx.Node, fx.Node], inputs: dict[fx.Node, fx.Node]
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
        if labels is None or isinstance(value.shape[axis], int):
            return None
        return labels.size, int((~self._gone[self._channels.class_of[labels]]).sum())

    def added(self, node: fx.Node, axis: int) -> tuple[int, int]:
        source = next(n for n in node.all_input_nodes)
        inner, outer = self._labels(source, axis, 0), self.kept(node, axis)
        widths = list(self._before[node].args[1])  # type: ignore[arg-type]
        position = 2 * (len(self._before[node].meta["val"].shape) - 1 - axis)
        before, behind = widths[position : position + 2]
        if outer is None or inner is None:
            return before, behind
        return int(outer[:before].sum()), int(outer[before + inner.size :].sum())


def _shrink_tensors(graph: Graph, channels: Channels, gone: np.ndarray) -> None:
    """Takes the indices of dead labels out of every tensor and mask; tied tensors stay tied."""
    tensors, transient = graph.tensors(), graph.transient()
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    for name, axes in channels.tensors.items():
        aliases = names.pop(id(tensors[name]), [])
        tensor = tensors[name]
        keep = [
            ~gone[channels.class_of[labels]] if labels is not None else np.ones(n, bool)
            for labels, n in zip(axes, tensor.shape, strict=True)
        ]
        if all(k.all() for k in keep):
            continue
        smaller = _select(tensor.detach(), keep)
        if isinstance(tensor, nn.Parameter):
            smaller = nn.Parameter(smaller, tensor.requires_grad)
        for alias in aliases:
            graph.set_tensor(alias, smaller, persistent=alias not in transient)
            if alias in graph.masks:
                graph.masks[alias] = _select(graph.masks[alias], keep)


def _select(tensor: torch.Tensor, keep: list[np.ndarray]) -> torch.Tensor:
    for axis, mask in enumerate(keep):
        if not mask.all():
            tensor = tensor.index_select(axis, torch.from_numpy(np.flatnonzero(mask)).to(tensor.device))
    return tensor
