"""Explains a graph's channels to a user: what removing a unit saves, which layers shrink with it, and why the rest stays.

`channels` finds groups and pinned axes; this file counts them and puts them into words.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from penjing.graph.channels.channels import UNMADE, UNSAID, Channels, Group
from penjing.graph.channels.no_channels import MADE_BY_CONSTANT, READ_BY_CONSTANT
from penjing.graph.channels.rules import RULES
from penjing.graph.cost import MACS, Row
from penjing.graph.graph import Graph
from penjing.graph.ops import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, node_arguments
from penjing.graph.propagation import at_batch_one, sizes

aten = torch.ops.aten

VIEWS = {"reshape", "flatten", "unflatten", "squeeze"}
CUTS = {"select", "slice", "split", "split_with_sizes", "chunk", "unbind", "index", "index_select", "gather"}
UNREAD = "in evaluation nothing reads them"


@dataclass(frozen=True)
class Saving:
    """What removing one unit of a group saves.

    Attributes:
        group: the group.
        params: parameters that are removed with one unit.
        macs: multiply-accumulates at batch 1 that are removed with one unit.
        shrinks: paths of the other layers (and single parameters) that get smaller, besides the layer that names the group.
    """

    group: Group
    params: int
    macs: int
    shrinks: tuple[str, ...]


@dataclass(frozen=True)
class Stay:
    """Indices of a parameter's axis that must stay.

    Attributes:
        tensor: the parameter's name.
        axis: the axis.
        indices: the number of indices that must stay.
        what: the indices in words: "10 outputs of linear".
        why: the reason in words.
        op: the op, or "input", "output", "unread", or the pattern that excluded them.
        source: the user's line of that op, or of the first op that reads the parameter; "" where neither has one.
    """

    tensor: str
    axis: int
    indices: int
    what: str
    why: str
    op: str
    source: str


@dataclass(frozen=True)
class Explanation:
    """The channels of a graph in numbers and words.

    Attributes:
        savings: one per group, in order of execution.
        stays: the indices that must stay.
        params: number of all parameters.
        removable: number of parameters that belong to at least one removable unit.
        params_at_half: number of parameters left when half of each group is removed.
        macs: multiply-accumulates at batch 1.
        macs_at_half: multiply-accumulates left when half of each group is removed.
        uncounted: ops that `macs` leaves out, since their number of multiplications isn't known.
    """

    savings: tuple[Saving, ...]
    stays: tuple[Stay, ...]
    params: int
    removable: int
    params_at_half: int
    macs: int
    macs_at_half: int
    uncounted: tuple[Row, ...] = ()


def explain(graph: Graph, found: Channels) -> Explanation:
    """Returns the channels of `graph` in numbers and words.

    Args:
        graph: a captured graph.
        found: the graph's channels.
    """
    cost = graph.cost()
    counter = _Counter(graph, found, {row.node: row.macs for row in cost.rows})
    savings = tuple(
        Saving(group, group.params, counter.macs_of_one(position), _shrinks(group))
        for position, group in enumerate(found.groups)
    )
    half = [min(math.floor(group.units / 2 + 0.5), group.units - 1) for group in found.groups]
    return Explanation(
        savings,
        _stays(graph, found),
        cost.params,
        cost.params - counter.params_without([group.units for group in found.groups]),
        counter.params_without(half),
        cost.macs,
        cost.macs - counter.macs_saved(half),
        cost.uncounted,
    )


def _shrinks(group: Group) -> tuple[str, ...]:
    return tuple(path for path in dict.fromkeys(_owner(entry.tensor) for entry in group.entries) if path != group.name)


def _owner(tensor: str) -> str:
    """Returns the path of the layer that holds a tensor; a single parameter, such as positions, is its own owner."""
    path, _, leaf = tensor.rpartition(".")
    return path if path and any(word in leaf for word in ("weight", "bias", "running")) else tensor


class _Counter:
    """Counts the parameters and MACs of a graph as if units were removed."""

    def __init__(self, graph: Graph, found: Channels, macs: dict[str, int]) -> None:
        self._graph, self._found = graph, found
        self._group_of = np.full(int(found.class_of.max()) + 1, -1)
        for index, group in enumerate(found.groups):
            self._group_of[group.classes] = index
        self._units = np.array([group.units for group in found.groups], float)
        self._number = at_batch_one(graph)
        self._macs = macs
        self._nodes = [node for node in graph.program.graph.nodes if self._macs.get(node.name)]
        self._sizes: dict[fx.Node, tuple[int, ...]] = {}
        self._shares: dict[fx.Node, list[np.ndarray]] = {}
        self._touching: dict[int, list[fx.Node]] = {}
        for node in self._nodes:
            shares = [share for one in (node, *node.all_input_nodes) for share in self._share(one)]
            for position in np.flatnonzero(np.sum(shares, axis=0)) if shares else ():
                self._touching.setdefault(int(position), []).append(node)

    def params_without(self, removed: list[int]) -> int:
        """Returns the number of parameters left when so many units of each group are removed."""
        axes_of = {id(self._graph.tensor(name)): axes for name, axes in self._found.tensors.items()}
        left = 0
        for _, tensor in self._graph.named_parameters():
            lengths = [
                size if labels is None else size - self._per_unit(labels, size) @ np.array(removed, float)
                for labels, size in zip(axes_of.get(id(tensor), (None,) * tensor.dim()), tensor.shape, strict=True)
            ]
            left += round(math.prod(lengths))
        return left

    def macs_of_one(self, position: int) -> int:
        """Returns the number of MACs that removing one unit of a group saves."""
        return sum(self._saved(node, lambda share: float(share[position])) for node in self._touching.get(position, ()))

    def macs_saved(self, removed: list[int]) -> int:
        """Returns the number of MACs that removing so many units of each group saves."""
        return sum(self._saved(node, lambda share: float(share @ np.array(removed))) for node in self._nodes)

    def _saved(self, node: fx.Node, indices: Callable[[np.ndarray], float]) -> int:
        """Returns the MACs of one op that are saved, where `indices` gives the removed indices of an axis from its share."""

        def after(one: fx.Node) -> tuple[int, ...]:
            shares = self._share(one)
            lengths = zip(self._before(one), shares, strict=True) if shares else ()
            return tuple(round(size - indices(share)) for size, share in lengths) or self._before(one)

        arguments = node_arguments(node)
        old, new = (MACS[node.target](node, arguments, shape) for shape in (self._before, after))
        return round(self._macs[node.name] * (old - new) / old) if old else 0

    def _before(self, node: fx.Node) -> tuple[int, ...]:
        if node not in self._sizes:
            self._sizes[node] = sizes(node, self._number)
        return self._sizes[node]

    def _share(self, node: fx.Node) -> list[np.ndarray]:
        """Returns, per axis of a node's value, the number of indices that one unit of each group has there."""
        if node not in self._shares:
            labels = self._found.labels.get(node)
            value = node.meta.get("val")
            if labels and isinstance(labels, tuple) and isinstance(value, Tensor):
                shape = zip(labels, self._before(node), strict=True)
                self._shares[node] = [self._per_unit(axis, size) for axis, size in shape]
            else:
                self._shares[node] = []
        return self._shares[node]

    def _per_unit(self, labels: np.ndarray | None, size: int) -> np.ndarray:
        if labels is None or not labels.size or not len(self._units):
            return np.zeros(len(self._units))
        groups = self._group_of[self._found.class_of[labels]].ravel()
        counts = np.bincount(groups[groups >= 0], minlength=len(self._units))
        return counts / self._units * (size / labels.size)  # labels may repeat along an axis of dynamic size


def _stays(graph: Graph, found: Channels) -> tuple[Stay, ...]:
    """Returns the indices that must stay: those of pinned axes, and parameters that can't shrink though no axis is pinned.

    Parameters that no op reads, such as those of heads that only training uses, stay as well.
    """
    readers = _readers(graph)
    removable = np.zeros(int(found.class_of.max()) + 1, bool)
    for group in found.groups:
        removable[group.classes] = True
    ends = _ends(graph, found)
    stays = []
    for pin in found.pinned:
        if graph.tensor(pin.tensor).shape[pin.axis] == 1:  # an axis of one index can't shrink
            continue
        labels = found.tensors[pin.tensor][pin.axis]
        classes = set() if labels is None else set(found.class_of[labels].tolist())
        stays.append(_stay(pin.tensor, pin.axis, pin.indices, pin.op, pin.source, readers, classes, ends))
    named = {stay.tensor for stay in stays}
    for name, axes in found.tensors.items():
        free = any(labels is not None and removable[found.class_of[labels]].any() for labels in axes)
        if name not in named and not free and isinstance(graph.tensor(name), torch.nn.Parameter) and axes:
            axis = max(
                range(len(axes)), key=lambda one: graph.tensor(name).shape[one]
            )  # the axis that could matter most
            stays.append(_stay(name, axis, graph.tensor(name).shape[axis], UNSAID, "", readers, set(), ends))
    read = {id(graph.tensor(name)) for name in found.tensors}
    for name, tensor in graph.named_parameters():
        if id(tensor) not in read:
            stays.append(Stay(name, 0, tensor.shape[0] if tensor.dim() else 1, _owner(name), UNREAD, "unread", ""))
    return tuple(stays)


def _stay(
    tensor: str,
    axis: int,
    indices: int,
    op: str,
    source: str,
    readers: dict[str, fx.Node],
    classes: set[int],
    ends: list[tuple[str, str, set[int]]],
) -> Stay:
    reader = readers.get(tensor)
    if op in ("input", "output"):
        end = next((name for kind, name, its in ends if kind == op and its & classes), op)
        why = f"the model's {end} {'gives' if op == 'input' else 'shows'} them"
        return Stay(tensor, axis, indices, _what(tensor, axis, indices, reader), why, op, source)
    if op.startswith(("include=", "exclude=")):
        why = f"--{op.replace('=', ' ', 1)}"
    elif op in (MADE_BY_CONSTANT, READ_BY_CONSTANT):
        why = op
    else:
        if op in (UNSAID, UNMADE) and reader is not None:  # the op that reads them says more
            op = str(reader.target)
        why = _why(op)
    if not source and reader is not None:
        source = reader.meta.get("source", "")
    return Stay(tensor, axis, indices, _what(tensor, axis, indices, reader), why, op, source)


def _why(op: str) -> str:
    target, _, reason = op.partition(" (")
    short = target.split(".")[1] if target.startswith("aten.") else target
    known = any(str(one) == target for one in RULES)
    if reason:
        return f"{short}: {reason.removesuffix(')')}"
    if not known:
        return f"{short}: an op that Penjing has no rule for"
    if short in VIEWS:
        return f"{short} puts them in order"
    if short in CUTS:
        return f"{short} picks from them by number"
    return f"{short} reads them by their places"


def _what(tensor: str, axis: int, indices: int, reader: fx.Node | None) -> str:
    """Names the indices of a parameter's axis by their part in the op that reads the parameter."""
    path = _owner(tensor)
    position = None
    if reader is not None:
        position = next((i for i, arg in enumerate(reader.args) if _reads(arg, tensor)), None)
    target = None if reader is None else reader.target
    kinds: tuple[str, ...] = ()
    if target in CONVOLUTIONS or target is aten.linear.default:
        kinds = {1: ("output", "input"), 2: ("output",)}.get(position or 0, ())
    elif target in TRANSPOSED_CONVOLUTIONS:
        kinds = {1: ("input", "output"), 2: ("output",)}.get(position or 0, ())
    elif target is aten.embedding.default and position == 0:
        kinds = ("row", "output")
    if axis < len(kinds):
        return f"{indices:,} {kinds[axis]}{'' if indices == 1 else 's'} of {path}"
    return f"{indices:,} of {tensor}, axis {axis}"


def _reads(argument: Any, tensor: str) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr" and argument.target == tensor


def _readers(graph: Graph) -> dict[str, fx.Node]:
    """Returns the first op that reads each tensor."""
    found: dict[str, fx.Node] = {}
    for node in graph.program.graph.nodes:
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                found.setdefault(str(source.target), node)
    return found


def _ends(graph: Graph, found: Channels) -> list[tuple[str, str, set[int]]]:
    """Returns the kind, the name, and the classes of the labels of each input and output."""
    nodes: Any = graph.program.graph

    def classes(node: Any) -> set[int]:
        axes = found.labels.get(node, ())
        arrays = [axis for axis in (axes if isinstance(axes, tuple) else ()) if isinstance(axis, np.ndarray)]
        return {int(one) for axis in arrays for one in found.class_of[axis[axis > 0]]}

    placeholders = [node for node in nodes.nodes if node.op == "placeholder"]
    ends = [
        ("input", f"input {given.name}", classes(node)) for node, given in zip(placeholders, graph.inputs, strict=True)
    ]
    outputs = nodes.output_node().args[0]
    tree = pytree.tree_unflatten(list(range(len(outputs))), graph.out_spec)
    for (path, _), node in zip(pytree.tree_flatten_with_path(tree)[0], outputs, strict=True):
        name = ".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path)
        ends.append(("output", f"output {name}" if name else "output", classes(node)))
    return ends
