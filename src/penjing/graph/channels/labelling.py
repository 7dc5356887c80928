"""The walk over a graph that passes the labels of each op's inputs to the op's rule. The walk knows no op by name."""

import operator
import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, fx

from penjing.graph.channels.rules import FREE, RULES, TILED, Axes, Axis, Uncovered, Value, fixed
from penjing.graph.graph import Graph
from penjing.graph.ops import node_arguments

Cut = tuple[str, int, int]
"""The name of a node that splits an axis into several, the position of one of these axes, and its size."""


class Labeller:
    """Hands out labels and collects the rules' statements about them (see `rules.table.Labelling`)."""

    def __init__(self, graph: Graph, units: str, *, exploring: bool = False, stuck: Collection[Cut] = ()) -> None:
        self.graph = graph
        self.units = units
        self.exploring = exploring
        self.stuck = stuck  # axes of splits that can't carry channels
        self.cuts: dict[Cut, np.ndarray] = {}
        self.ambiguous = False  # whether an exploring walk met axes that may carry channels or not
        self.unlabelled: dict[fx.Node, str] = {}
        self.node: fx.Node = next(iter(graph.program.graph.nodes))
        self.next_label = 1
        self.ties: list[tuple[np.ndarray, np.ndarray]] = []
        self.pins: list[tuple[np.ndarray, fx.Node]] = []
        self.unequals: list[tuple[np.ndarray, np.ndarray]] = []
        self.shared: list[tuple[np.ndarray, fx.Node, int]] = []
        self.roles: dict[tuple[str, int], str] = {}
        self.values: dict[fx.Node, Any] = {}
        self.tensors: dict[str, Axes] = {}
        self._axes_of: dict[int, Axes] = {}
        self._symbols: dict[Any, int] = {}  # stand-in numbers of dynamic sizes
        self._stand_ins = 0  # how many such numbers were handed out
        self._sizes: dict[Any, int] = {}  # numbers of expressions of dynamic sizes
        self._starts: list[int] = []  # first label of each tensor's axis, to find the axis of a label
        self._owners: list[tuple[str, int, int]] = []

    # Methods for rules

    def fresh(self, count: int) -> np.ndarray:
        """Returns `count` new labels."""
        if not fixed(count):
            raise Uncovered("an axis of free size has no label for each index")
        return self._labels(count)

    def axis(self, size: int) -> Axis:
        """Returns new labels for an axis, or None for an axis of dynamic size."""
        return self._labels(size) if fixed(size) else None

    def _labels(self, count: int) -> np.ndarray:
        self.next_label += count
        return np.arange(self.next_label - count, self.next_label, dtype=np.int64)

    def tie(self, a: Axis, b: Axis) -> None:
        """Records that labels at equal positions belong together."""
        if a is None or b is None:
            self.pin(a if b is None else b)
        elif a.shape != b.shape:
            raise Uncovered(f"axes of {a.size} and {b.size} indices can't be tied")
        elif a is not b:
            self.ties.append((a, b))
            for one, other in ((a, b), (b, a)):
                self.pin(other[one == 0])

    def pin(self, axis: Axis) -> None:
        """Records that these labels must stay because of the current node."""
        if axis is not None and axis.size:
            self.pins.append((axis, self.node))

    def unequal(self, longer: Axis, shorter: Axis) -> None:
        """Records, for surgery, that the first axis must stay longer than the second."""
        if longer is not None and shorter is not None:
            self.unequals.append((longer, shorter))

    def shares(self, axis: Axis) -> None:
        """Records that the labels share one whole, with the number of ties so far: later ties don't come from its inputs."""
        if axis is not None:
            self.shared.append((axis[axis > 0], self.node, len(self.ties)))

    def role(self, value: Value, axis: int, role: str) -> None:
        """Records the role of an axis; the first role of an axis counts."""
        if value.name is not None:
            self.roles.setdefault((value.name, axis), role)
        elif value.constant and value.axes[axis] is not None:
            for slot in self._owners_of(np.unique(value.axes[axis])):
                self.roles.setdefault(slot, role)

    def owned(self, axis: Axis) -> bool:
        """Tells whether any of these labels belongs to a parameter."""
        owners = () if axis is None else self._owners_of(np.unique(axis))
        return any(isinstance(self.graph.tensor(name), torch.nn.Parameter) for name, _ in owners)

    def choose(self, sizes: Mapping[int, int]) -> int:
        """Returns the axis that carries channels: the longest, the innermost (features) or the one before it (heads)."""
        axes = sorted(axis for axis, size in sizes.items() if self._cut(axis, size) not in self.stuck) or sorted(sizes)
        longest, last, before = max(axes, key=lambda axis: sizes[axis]), axes[-1], axes[max(len(axes) - 2, 0)]
        return {"heads": before, "features": last}.get(self.units, longest)

    def tried(self, candidates: Mapping[int, np.ndarray]) -> None:
        """Records the candidates, to find after the walk which of them an op pinned."""
        self.ambiguous = True
        self.cuts |= {self._cut(axis, labels.size): labels for axis, labels in candidates.items()}

    def _cut(self, axis: int, size: int) -> Cut:
        return self.node.name, axis, size

    def output(self, index: int = 0) -> tuple[int, ...]:
        """Returns the shape of the node's (n-th) output."""
        value = self.node.meta["val"]
        return self.shape(value if isinstance(value, Tensor) else value[index])

    def _owners_of(self, labels: np.ndarray) -> set[tuple[str, int]]:
        owners = {self._owners[i] for i in np.unique(np.searchsorted(self._starts, labels, "right") - 1) if i >= 0}
        return {(name, axis) for name, axis, stop in owners if (labels < stop).any()}

    # The walk

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """Returns a tensor's sizes, with a stand-in number for each dynamic one."""
        return tuple(self._size(size) for size in tensor.shape)

    def _size(self, size: Any) -> int:
        """Returns a size; stand-ins of dynamic sizes are so large and prime-like that different products of them differ."""
        if not isinstance(size, torch.SymInt):
            return int(size)
        expression = size.node.expr
        if expression not in self._sizes:
            for symbol in expression.free_symbols - self._symbols.keys():
                # A stand-in can be divided, as by the sides of windows, and still counts as dynamic; no two symbols
                # share a factor.
                self._symbols[symbol] = self._stand_in()
            number = int(expression.subs(self._symbols))
            # A difference or a remainder of dynamic sizes is dynamic, too, however small the number that the stand-ins give.
            free = fixed(abs(number)) and expression.free_symbols
            self._sizes[expression] = self._stand_in() if free or number < 0 else number
        return self._sizes[expression]

    def _stand_in(self) -> int:
        self._stand_ins += 1
        return FREE * 20160 * (99 + 2 * self._stand_ins)

    def walk(self) -> None:
        """Labels every node in order of execution."""
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
            self._axes_of[id(tensor)] = tuple(self._owned(name, axis, size) for axis, size in enumerate(tensor.shape))
        self.tensors[name] = self._axes_of[id(tensor)]
        return Value(self.tensors[name], tuple(tensor.shape), name, constant=True)

    def _owned(self, name: str, axis: int, size: int) -> np.ndarray:
        self._starts.append(self.next_label)
        self._owners.append((name, axis, self.next_label + size))
        return self._labels(size)  # however many: sizes of parameters are never dynamic

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            container = self.values.get(node.args[0])  # type: ignore[arg-type]
            return container[node.args[1]] if isinstance(container, list) else None
        known = RULES.get(node.target)
        if known is None:
            return self._without_labels(node, "no rule")
        try:
            arguments = [self._argument(value, node.target in TILED) for value in node_arguments(node)]
            return self._outputs(node, known(self, *arguments))
        except Uncovered as unlabelled:
            return self._without_labels(node, str(unlabelled))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # A mistake in a rule must not make the whole model fail, but the user must hear of it.
            warnings.warn(f"The rule of {node.target} failed, so its channels all stay: {error!r}", stacklevel=2)
            return self._without_labels(node, repr(error))

    def _without_labels(self, node: fx.Node, why: str) -> Any:
        self.unlabelled[node] = why
        self._pin_all((node.args, node.kwargs))
        return self._pinned_outputs(node)

    def _argument(self, value: Any, tiled: bool) -> Any:
        if isinstance(value, fx.Node):
            known = self.values.get(value)
            if known is None:  # a number, which its node represents
                return value
            return known if tiled or not isinstance(known, Value) else self._without_tiles(known)
        if isinstance(value, list | tuple):
            return [self._argument(item, tiled) for item in value]
        return value

    def _without_tiles(self, value: Value) -> Value:
        """Pins the axes of dynamic size that have labels, for rules that don't know tiled axes."""
        if all(axis is None or axis.size == size for axis, size in zip(value.axes, value.shape, strict=True)):
            return value
        for axis, size in zip(value.axes, value.shape, strict=True):
            self.pin(None if fixed(size) else axis)
        axes = tuple(axis if fixed(size) else None for axis, size in zip(value.axes, value.shape, strict=True))
        return replace(value, axes=axes)

    def _outputs(self, node: fx.Node, result: Any) -> Any:
        outputs = node.meta["val"]
        if isinstance(outputs, Tensor):
            return self._checked(node, result, outputs)
        return [self._checked(node, axes, tensor) for axes, tensor in zip(result, outputs, strict=True)]

    def _checked(self, node: fx.Node, axes: Axes, tensor: Tensor) -> Value:
        shape = self.shape(tensor)
        fits = len(axes) == len(shape) and all(
            a is None or a.size == n or (n >= FREE and n % a.size == 0) for a, n in zip(axes, shape, strict=True)
        )
        if not fits:
            sizes = [None if a is None else a.size for a in axes]
            raise ValueError(f"labels {sizes} for an output of shape {shape}")
        return Value(axes, shape, constant=all(self._is_constant(argument) for argument in node.all_input_nodes))

    def _is_constant(self, node: fx.Node) -> bool:
        value = self.values.get(node)
        return all(isinstance(v, Value) and v.constant for v in (value if isinstance(value, list) else [value]))

    def _pinned_outputs(self, node: fx.Node) -> Any:
        outputs = node.meta.get("val")
        if isinstance(outputs, Tensor):
            return self._pinned_value(outputs)
        if isinstance(outputs, list | tuple):
            return [self._pinned_value(t) if isinstance(t, Tensor) else None for t in outputs]
        return None  # a number: sizes and arithmetic on them carry no channels

    def _pinned_value(self, tensor: Tensor) -> Value:
        """Returns a value with pinned labels, so that anything tied to them later is known to stay because of this node."""
        shape = self.shape(tensor)
        axes = tuple(self.axis(size) for size in shape)
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

    # Results of the walk

    def classes(self, first_ties: int | None = None) -> np.ndarray:
        """Returns the class of each label: the connected components of all ties, or of the first `first_ties`."""
        count, ties = self.next_label, self.ties[:first_ties]
        if not ties:
            return np.arange(count)
        a = np.concatenate([first.ravel() for first, _ in ties])
        b = np.concatenate([second.ravel() for _, second in ties])
        free = (a > 0) & (b > 0)  # label 0 means pinned: it must not join all pinned labels in one class
        joined = coo_array((np.ones(free.sum(), bool), (a[free], b[free])), shape=(count, count))
        return np.asarray(connected_components(joined)[1])

    def made_by(self, chosen: Any) -> list[np.ndarray]:
        """Returns the labels of the "out" axes of the tensors for whose module path `chosen` is true."""
        found = []
        for (name, axis), role in self.roles.items():
            labels = self.tensors[name][axis]
            if role == "out" and labels is not None and chosen(name.rpartition(".")[0]):
                found.append(labels)
        return found
