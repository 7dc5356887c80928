"""Which slices of which tensors must go together: labels on every index, classes of labels, groups of classes.

The walk hands each op's labels to its rule and knows no op by name. Labels that rules tied are one *unit*: it lives or
dies as one. Units that touch the same tensors in the same way form a *group*.
"""

import fnmatch
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, fx

from penjing.errors import PenjingError, unknown_name
from penjing.graph.graph import Graph
from penjing.graph.normalize import node_arguments
from penjing.graph.rules import RULES, Axes, Axis, Value
from penjing.graph.rules.shaping import FREE


@dataclass(frozen=True)
class Entry:
    """Where a group's units stand in one axis of one tensor.

    Attributes:
        tensor: the tensor's name.
        axis: which of its axes.
        role: "out" (the axis makes the channels), "in" (it reads them), "scale", "shift", "statistic" or "other".
        indices: `(units, copies)`, the indices along the axis that belong to each unit.
    """

    tensor: str
    axis: int
    role: str
    indices: np.ndarray


@dataclass(frozen=True)
class Group:
    """Units that are alike: removing any of them shrinks the same tensors by as much.

    Attributes:
        name: the module that makes the channels (the first of them).
        entries: where the units stand.
        classes: `(units,)`, the class of labels of each unit.
        params: parameters that one unit carries.
    """

    name: str
    entries: tuple[Entry, ...]
    classes: np.ndarray
    params: int

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.classes)

    def made_by(self) -> tuple[str, ...]:
        """The names of the weights that make these channels."""
        return tuple(entry.tensor for entry in self.entries if entry.role == "out")


@dataclass(frozen=True)
class Pinned:
    """An axis of a parameter of which some indices must stay, and the first op that said so.

    Attributes:
        tensor: the parameter's name.
        axis: which of its axes.
        indices: how many indices must stay.
        op: the op that pinned them, "input", "output", or the pattern that excluded them.
        source: the user's line of that op.
    """

    tensor: str
    axis: int
    indices: int
    op: str
    source: str


@dataclass
class Channels:
    """The channels of a graph.

    Attributes:
        groups: what can be removed, in order of execution.
        pinned: what can't, and why.
        labels: labels of each node's output axes (a list of `Axes` for ops with several outputs).
        class_of: class of each label.
        tensors: labels of each tensor's axes.
    """

    groups: tuple[Group, ...]
    pinned: tuple[Pinned, ...]
    labels: dict[fx.Node, Any]
    class_of: np.ndarray
    tensors: dict[str, Axes]


def channels(graph: Graph, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Channels:
    """Labels every index of every axis of `graph` and returns its groups of removable units.

    Args:
        graph: a captured graph.
        include: patterns of module paths (`layer1.*`); if given, only channels that a matching module makes are groups.
        exclude: patterns of module paths whose channels must all stay.

    Raises:
        PenjingError: a pattern matches no module.
    """
    _check_patterns(graph, [*include, *exclude])
    labeller = _Labeller(graph)
    labeller.walk()
    return _collect(graph, labeller, include, exclude)


class _Labeller:
    """Hands out labels and collects what the rules say of them (see `rules.table.Labelling`)."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.node: fx.Node = next(iter(graph.program.graph.nodes))
        self.next_label = 1
        self.ties: list[tuple[np.ndarray, np.ndarray]] = []
        self.pins: list[tuple[np.ndarray, fx.Node]] = []
        self.roles: dict[tuple[str, int], str] = {}
        self.values: dict[fx.Node, Any] = {}
        self.tensors: dict[str, Axes] = {}
        self._axes_of: dict[int, Axes] = {}
        self._sizes: dict[Any, int] = {}

    # What a rule may ask for

    def fresh(self, count: int) -> np.ndarray:
        self.next_label += count
        return np.arange(self.next_label - count, self.next_label, dtype=np.int64)

    def tie(self, a: Axis, b: Axis) -> None:
        if a is None or b is None:
            self.pin(a if b is None else b)
        elif a.shape != b.shape:
            raise ValueError(f"axes of {a.size} and {b.size} indices can't be tied")
        elif a is not b:
            self.ties.append((a, b))

    def pin(self, axis: Axis) -> None:
        if axis is not None and axis.size:
            self.pins.append((axis, self.node))

    def role(self, value: Value, axis: int, role: str) -> None:
        if value.name is not None:
            self.roles.setdefault((value.name, axis), role)

    def output(self, index: int = 0) -> tuple[int, ...]:
        value = self.node.meta["val"]
        return self.shape(value if isinstance(value, Tensor) else value[index])

    # The walk

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        return tuple(self._size(size) for size in tensor.shape)

    def _size(self, size: Any) -> int:
        """Numbers of their own for free sizes, so large and prime-like that products of different ones differ."""
        if not isinstance(size, torch.SymInt):
            return int(size)
        expression = size.node.expr
        for symbol in expression.free_symbols:
            self._sizes.setdefault(symbol, FREE + 3 + 30 * len(self._sizes))
        return int(expression.subs(self._sizes))

    def walk(self) -> None:
        for node in self.graph.program.graph.nodes:
            self.node = node
            if node.op == "get_attr":
                self.values[node] = self._constant(str(node.target))
            elif node.op == "placeholder":
                self.values[node] = self._pinned_value(node.meta["val"])
            elif node.op == "output":
                self._pin_all(node.args)
            else:
                self.values[node] = self._call(node)

    def _constant(self, name: str) -> Value:
        tensor = self.graph.tensor(name)
        if id(tensor) not in self._axes_of:
            self._axes_of[id(tensor)] = tuple(self.fresh(size) for size in tensor.shape)
        self.tensors[name] = self._axes_of[id(tensor)]
        return Value(self.tensors[name], tuple(tensor.shape), name)

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            container = self.values.get(node.args[0])  # type: ignore[arg-type]
            return container[node.args[1]] if isinstance(container, list) else None
        known = RULES.get(node.target)
        if known is None:
            self._pin_all((node.args, node.kwargs))
            return self._pinned_outputs(node)
        result = known(self, *(self._argument(value) for value in node_arguments(node)))
        return self._outputs(node, result)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return self.values.get(value, value)
        if isinstance(value, list | tuple):
            return [self._argument(item) for item in value]
        return value

    def _outputs(self, node: fx.Node, result: Any) -> Any:
        outputs = node.meta["val"]
        if isinstance(outputs, Tensor):
            return self._checked(node, result, outputs)
        return [self._checked(node, axes, tensor) for axes, tensor in zip(result, outputs, strict=True)]

    def _checked(self, node: fx.Node, axes: Axes, tensor: Tensor) -> Value:
        shape = self.shape(tensor)
        fits = len(axes) == len(shape) and all(a is None or a.size == n for a, n in zip(axes, shape, strict=True))
        if not fits:
            sizes = [None if a is None else a.size for a in axes]
            raise PenjingError(f"The rule of {node.target} gives labels {sizes} for an output of shape {shape}.")
        return Value(axes, shape)

    def _pinned_outputs(self, node: fx.Node) -> Any:
        outputs = node.meta.get("val")
        if isinstance(outputs, Tensor):
            return self._pinned_value(outputs)
        if isinstance(outputs, list | tuple):
            return [self._pinned_value(t) if isinstance(t, Tensor) else None for t in outputs]
        return None  # a number: sizes and arithmetic on them carry no channels

    def _pinned_value(self, tensor: Tensor) -> Value:
        """Labels that must all stay, so that what they are tied to later is known to stay because of this node."""
        shape = self.shape(tensor)
        axes = tuple(None if size >= FREE else self.fresh(size) for size in shape)
        for axis in axes:
            self.pin(axis)
        return Value(axes, shape)

    def _pin_all(self, arguments: Any) -> None:
        def pin(node: fx.Node) -> fx.Node:
            value = self.values.get(node)
            for one in value if isinstance(value, list) else [value]:
                for axis in one.axes if isinstance(one, Value) else ():
                    self.pin(axis)
            return node

        fx.node.map_arg(arguments, pin)


def _classes(labeller: _Labeller) -> np.ndarray:
    """Returns the class of each label: connected components of the ties."""
    count = labeller.next_label
    if not labeller.ties:
        return np.arange(count)
    a = np.concatenate([first.ravel() for first, _ in labeller.ties])
    b = np.concatenate([second.ravel() for _, second in labeller.ties])
    free = (a > 0) & (b > 0)  # label 0 pins and must not join what it touches into one class
    _, classes = connected_components(coo_array((np.ones(free.sum(), bool), (a[free], b[free])), shape=(count, count)))
    for first, second in labeller.ties:
        for pinned, other in ((first, second), (second, first)):
            if (pinned == 0).any():
                labeller.pins.append((other[pinned == 0], labeller.node))
    return classes


def _collect(graph: Graph, labeller: _Labeller, include: Sequence[str], exclude: Sequence[str]) -> Channels:
    class_of = _classes(labeller)
    reason = np.full(class_of.max() + 1, -1)
    reasons: list[tuple[str, str]] = []

    def pin(classes: np.ndarray, op: str, source: str) -> None:
        reasons.append((op, source))
        classes = classes[reason[classes] < 0]
        reason[classes] = len(reasons) - 1

    pin(class_of[:1], "a pinned axis", "")
    for labels, node in labeller.pins:
        pin(class_of[labels.ravel()], _why(node), node.meta.get("source", ""))
    for pattern in exclude:
        for labels in _made_by(labeller, lambda path, pattern=pattern: _matches(path, [pattern])):
            pin(class_of[labels], f"exclude={pattern}", "")
    if include:
        made = list(_made_by(labeller, lambda path: _matches(path, include)))
        wanted = np.zeros(len(reason), bool)
        for labels in made:
            wanted[class_of[labels]] = True
        pin(np.flatnonzero(~wanted), f"include={','.join(include)}", "")
    made_by_layer = np.zeros(len(reason), bool)
    for labels in _made_by(labeller, lambda path: True):
        made_by_layer[class_of[labels]] = True
    pin(np.flatnonzero(~made_by_layer), "no layer makes it", "")
    slots = _slots(graph, labeller)
    groups = _groups(graph, slots, labeller, class_of, reason < 0)
    pinned = _pinned(slots, labeller, class_of, reason, reasons)
    labels_of = {
        n: [_axes(v) for v in value] if isinstance(value, list) else _axes(value)
        for n, value in labeller.values.items()
    }
    return Channels(groups, pinned, labels_of, class_of, labeller.tensors)


def _axes(value: Any) -> Axes:
    return value.axes if isinstance(value, Value) else ()


def _why(node: fx.Node) -> str:
    return {"placeholder": "input", "output": "output"}.get(node.op, str(node.target))


def _made_by(labeller: _Labeller, chosen: Any) -> list[np.ndarray]:
    """Returns the labels of the "out" axes of the tensors whose module path is chosen."""
    found = []
    for (name, axis), role in labeller.roles.items():
        labels = labeller.tensors[name][axis]
        if role == "out" and labels is not None and chosen(name.rpartition(".")[0]):
            found.append(labels)
    return found


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """A pattern names a module, or a module above it; `*` stands for anything."""
    return any(fnmatch.fnmatchcase(path, p) or fnmatch.fnmatchcase(path, f"{p}.*") for p in patterns)


def _check_patterns(graph: Graph, patterns: Sequence[str]) -> None:
    paths = sorted(
        {name.rpartition(".")[0] for name in graph.tensors()}
        | {n.meta.get("module", "") for n in graph.program.graph.nodes}
    )
    for pattern in patterns:
        if not any(_matches(path, [pattern]) for path in paths):
            raise unknown_name("module pattern", pattern, [path for path in paths if path])


Slot = tuple[str, int]


def _slots(graph: Graph, labeller: _Labeller) -> list[Slot]:
    """The axes of all tensors, tied tensors once."""
    seen: set[int] = set()
    slots = []
    for name, axes in labeller.tensors.items():
        if id(graph.tensor(name)) in seen:
            continue
        seen.add(id(graph.tensor(name)))
        slots += [(name, axis) for axis in range(len(axes))]
    return slots


def _groups(
    graph: Graph, slots: list[Slot], labeller: _Labeller, class_of: np.ndarray, removable: np.ndarray
) -> tuple[Group, ...]:
    """Units with the same footprint (the same number of indices in the same axes) form a group."""
    footprint = np.zeros(len(removable), np.uint64)
    hashes = np.random.default_rng(0).integers(1, 2**63, len(slots), np.uint64)
    for code, (name, axis) in zip(hashes, slots, strict=True):
        np.add.at(footprint, class_of[labeller.tensors[name][axis]], code)
    units = np.flatnonzero(removable & (footprint != 0))
    _, group_of_unit = np.unique(footprint[units], return_inverse=True)
    group_of = np.full(len(removable), -1)
    group_of[units] = group_of_unit
    entries: dict[int, list[Entry]] = {}
    for name, axis in slots:
        classes = class_of[labeller.tensors[name][axis]]
        groups = group_of[classes]
        for group in np.unique(groups[groups >= 0]):
            positions = np.flatnonzero(groups == group)
            positions = positions[np.argsort(classes[positions], kind="stable")]
            count = len(np.unique(classes[positions]))
            role = labeller.roles.get((name, axis), "other")
            entries.setdefault(int(group), []).append(Entry(name, axis, role, positions.reshape(count, -1)))
    result = []
    for group, found in entries.items():
        members = units[group_of_unit == group]
        made = [e for e in found if e.role == "out"] or found
        params = sum(
            e.indices.shape[1] * graph.tensor(e.tensor).numel() // graph.tensor(e.tensor).shape[e.axis]
            for e in found
            if isinstance(graph.tensor(e.tensor), torch.nn.Parameter)
        )
        result.append(Group(made[0].tensor.rpartition(".")[0] or made[0].tensor, tuple(found), members, params))
    return tuple(result)


def _pinned(
    slots: list[Slot], labeller: _Labeller, class_of: np.ndarray, reason: np.ndarray, reasons: list[tuple[str, str]]
) -> tuple[Pinned, ...]:
    found = []
    for name, axis in slots:
        why = reason[class_of[labeller.tensors[name][axis]]]
        if (name, axis) in labeller.roles and (why >= 0).any():
            op, source = reasons[why[why >= 0][0]]
            found.append(Pinned(name, axis, int((why >= 0).sum()), op, source))
    return tuple(found)
