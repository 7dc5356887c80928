"""Writes a program into a file, node by node, by the rules in `rules`.

Runtimes for phones keep channels last, PyTorch keeps them second. So each tensor in the file remembers in which order it holds
the graph's axes, and an op that permutes axes mostly only changes that order: no TRANSPOSE is written before a rule needs one.

A value that is rounded has a form in integers, beside one in floats or instead of one. A rule that computes in integers asks for
the former; where a rule asks for floats, a DEQUANTIZE is written. Pads wait until they are asked for, since a convolution can
take most of them in.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from penjing.errors import PenjingError
from penjing.graph.clips import CLIPS, Interval
from penjing.graph.ops import node_arguments
from penjing.targets.litert._file import DTYPES, File, Grid
from penjing.targets.litert._values import Values, values_of

ops = torch.ops.quantized_decomposed
QUANTIZE, DEQUANTIZE = ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default
WEIGHTS = (DEQUANTIZE, ops.dequantize_per_channel.default)

_READ_OUT = {torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default}

Rule = Callable[["Lowering", fx.Node], None]

# The clips that an op can take in, by their bounds.
_FUSED = {(0.0, float("inf")): 1, (-1.0, 1.0): 2, (0.0, 6.0): 3}


@dataclass(frozen=True)
class Held:
    """A tensor in the file that holds a value of the graph.

    Attributes:
        index: index of the tensor in the file.
        order: for each axis of the tensor, the axis of the graph's value that it holds.
        grid: of integers that stand for real values; None for a tensor whose numbers are the value's own.
    """

    index: int
    order: tuple[int, ...]
    grid: Grid | None = None


@dataclass(frozen=True)
class Codes:
    """A weight as integers: `real = scale · code`, with a scale for each entry of axis 0."""

    codes: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class Pad:
    """Zeros that wait in front of and behind the entries of each axis of a value."""

    source: fx.Node
    amounts: tuple[tuple[int, int], ...]


class Lowering:
    """One program on its way into a file.

    Attributes:
        file: what is written.
        values: the program's values.
    """

    def __init__(
        self, file: File, values: Values, label: Callable[[fx.Node], str], rules: Callable[[Any], Rule | None]
    ) -> None:
        """Begins with nothing written.

        Args:
            file: the file to write into.
            values: the program's values.
            label: gives the name under which tensors that a node makes stand in the file.
            rules: gives the rule of an op; None where there is none.
        """
        self.file, self.values = file, values
        self._label, self._rules = label, rules
        self._floats: dict[fx.Node, Held] = {}
        self._integers: dict[fx.Node, Held] = {}
        self._pads: dict[fx.Node, Pad] = {}
        self._parts: dict[fx.Node, Sequence[Held]] = {}
        self._alike: dict[fx.Node, list[fx.Node]] = {}  # by a node that rounds, others that round the same value alike
        self._done: set[fx.Node] = set()
        self._at: fx.Node | None = None

    # Walking

    def run(self, nodes: fx.Graph) -> None:
        """Writes all nodes that compute something at run time, but for inputs and outputs.

        Raises:
            PenjingError: an op has no rule and can't be written in ops that have one.
        """
        for node in nodes.nodes:
            if node.target in _READ_OUT and node.args[0] in self.values.flowing:
                raise NoRule(node)  # a number that changes from call to call would become a constant
            if node.op == "call_function" and node in self.values.flowing and node not in self._done:
                self._write(node)

    def _write(self, node: fx.Node) -> None:
        self._at, before = node, self._at
        if node.target is operator.getitem:
            self._take_part(node)
        elif (rule := self._rules(node.target)) is not None:
            rule(self, node)
        else:
            self.expand(node, node.target)  # type: ignore[arg-type]
        self._at = before

    def _take_part(self, node: fx.Node) -> None:
        source, place = node.args
        held = self._parts[source][place]  # type: ignore[index]
        (self._floats if held.grid is None else self._integers)[node] = held

    def expand(self, node: fx.Node, function: Callable[..., Any]) -> None:
        """Writes a node as the simpler ops that a function with the node's arguments runs.

        Raises:
            PenjingError: the function runs no simpler ops.
        """
        args, kwargs = self._given(node.args), self._given(dict(node.kwargs))
        tensors = [source for source in node.all_input_nodes if source in self.values.flowing]
        given = {id(self.values.of[source]): place for place, source in enumerate(tensors)}

        def called(*flowing: Tensor) -> Any:
            def back(value: Any) -> Any:
                if isinstance(value, Tensor) and id(value) in given:
                    return flowing[given[id(value)]]
                if isinstance(value, list | tuple):
                    return type(value)(back(one) for one in value)
                return value

            return function(*back(args), **{name: back(value) for name, value in kwargs.items()})

        inputs = [self.values.of[source] for source in tensors]
        try:
            with torch.no_grad():
                program = make_fx(called, decomposition_table=_decompositions(self._rules))(*inputs)
        except Exception as error:  # tracing raises exceptions of many types; the op can't be written in others then
            raise NoRule(node) from error
        program.graph.eliminate_dead_code()
        if any(inner.target is node.target for inner in program.graph.nodes):
            raise NoRule(node)
        inner = Lowering(self.file, values_of(program, inputs), lambda _: self._label(node), self._rules)
        for place, source in zip((one for one in program.graph.nodes if one.op == "placeholder"), tensors, strict=True):
            inner._adopt(place, self, source)
        try:
            inner.run(program.graph)
        except NoRule as error:
            raise NoRule(node, error.target) from error
        self._collect(node, program.graph, inner)

    def _adopt(self, place: fx.Node, outer: "Lowering", source: fx.Node) -> None:
        if source in outer._integers and source not in outer._floats:
            self._integers[place] = outer._integers[source]
        else:
            self._floats[place] = outer.held(source)

    def _collect(self, node: fx.Node, nodes: fx.Graph, inner: "Lowering") -> None:
        made = nodes.output_node().args[0]
        if isinstance(made, fx.Node):
            self._floats[node] = inner.held(made)
            return
        parts: list[Any] = []
        for one in made:  # type: ignore[union-attr]
            parts.append(inner.held(one) if isinstance(one, fx.Node) else None)
        self._parts[node] = parts

    def _given(self, value: Any) -> Any:
        return fx.map_arg(value, lambda source: self.values.of[source])

    def at(self, node: fx.Node) -> None:
        """Names the tensors that are made from now on after a node."""
        self._at = node

    def done(self, node: fx.Node) -> None:
        """Says that a node was written together with one before it."""
        self._done.add(node)

    # Reading

    def arguments(self, node: fx.Node) -> list[Any]:
        """Returns a node's arguments in the order of the op's schema: nodes for what flows, values for all else."""
        flowing = self.values.flowing
        return [
            fx.map_arg(given, lambda one: one if one in flowing else self.values.of[one])
            for given in node_arguments(node)
        ]

    def shape(self, node: Any) -> tuple[int, ...]:
        """Returns the shape of a node's value, or of a constant."""
        return tuple((self.values.of[node] if isinstance(node, fx.Node) else node).shape)

    def weight(self, node: fx.Node, place: int) -> Codes | None:
        """Returns an argument as stored integers; None where it isn't a constant on a grid that is symmetric around 0."""
        given = node.args[place] if len(node.args) > place else None
        if not isinstance(given, fx.Node) or given.target not in WEIGHTS or given in self.values.flowing:
            return None
        arguments = [self._given(argument) for argument in node_arguments(given)]
        codes: Any = arguments[0]
        if given.target is DEQUANTIZE:
            scale, zero, axis = np.array([arguments[1]]), np.array([arguments[2]]), 0
        else:
            scale, zero, axis = arguments[1].numpy(), arguments[2].numpy(), arguments[3]
        if zero.any() or axis != 0 or codes.min() < -128 or codes.max() > 127:
            return None
        codes = codes.numpy().astype(np.int8)
        return Codes(codes, np.broadcast_to(scale.astype(np.float64), len(codes)))

    def held(self, node: fx.Node) -> Held:
        """Returns the tensor that holds a value in floats, or in whatever plain numbers it has."""
        if node in self._pads:
            self._fill(node)
        if node not in self.values.flowing:
            return self.fixed(self.values.of[node])
        if node not in self._floats and node in self._integers:
            source = self._integers[node]
            made = self.make(self.file.shape(source.index), "float32", source.order)
            self.file.op("DEQUANTIZE", [source.index], [made.index], kind="DequantizeOptions")
            self._floats[node] = made
        return self._floats[node]

    def fixed(self, value: Any, like: str | None = None, order: Sequence[int] | None = None) -> Held:
        """Returns a constant of the file, a tensor or a number, in a dtype and with its axes in an order."""
        tensor = torch.as_tensor(value).detach().cpu()
        array = tensor.numpy().astype(like or str(tensor.dtype).removeprefix("torch."))
        order = tuple(range(array.ndim) if order is None else order)
        return Held(self.file.constant(array.transpose(order)), order)

    def integers(self, node: Any) -> Held | None:
        """Returns the tensor that holds a value as integers; None where it isn't rounded."""
        if node in self._pads and self._pads[node].source in self._integers:
            self._fill(node)
        return self._integers.get(node) if isinstance(node, fx.Node) else None

    # Orders of axes

    def ordered(self, held: Held, order: Sequence[int]) -> Held:
        """Returns a value with its axes in an order; writes a TRANSPOSE, or a RESHAPE where only axes of size 1 move."""
        order = tuple(order)
        if held.order == order:
            return held
        permutation = [held.order.index(axis) for axis in order]
        sizes = self.file.shape(held.index)
        shape = [sizes[place] for place in permutation]
        moved = [place for place in permutation if sizes[place] != 1]
        if moved == sorted(moved):
            return self.reshaped(held, shape, order)
        made = self.make(shape, self.file.dtype(held.index), order, held.grid)
        constant = self.file.constant(np.array(permutation, np.int32), "permutation")
        self.file.op("TRANSPOSE", [held.index, constant], [made.index], kind="TransposeOptions")
        return made

    def plain(self, held: Held) -> Held:
        """Returns a value with its axes in the graph's order."""
        return self.ordered(held, range(len(held.order)))

    def reshaped(self, held: Held, shape: Sequence[int], order: Sequence[int] | None = None) -> Held:
        """Writes a RESHAPE to a shape of the file's tensor."""
        made = self.make(shape, self.file.dtype(held.index), order or range(len(shape)), held.grid)
        constant = self.file.constant(np.array(shape, np.int32), "shape")
        self.file.op(
            "RESHAPE", [held.index, constant], [made.index], kind="ReshapeOptions", newShape=np.array(shape, np.int32)
        )
        return made

    # Writing

    def make(
        self, shape: Sequence[int], dtype: str, order: Sequence[int] | None = None, grid: Grid | None = None
    ) -> Held:
        """Adds a tensor that is named after the node at work.

        Args:
            shape: of the file's tensor.
            dtype: NumPy's name.
            order: for each axis the axis of the graph's value; the graph's own order by default.
            grid: of integers.
        """
        assert self._at is not None
        if dtype not in DTYPES:
            raise NoRule(self._at, f"{self._at.target} in {dtype}")
        index = self.file.tensor(shape, dtype, self._label(self._at), grid)
        return Held(index, tuple(range(len(shape)) if order is None else order), grid)

    def dtype_of(self, node: fx.Node) -> str:
        """Returns NumPy's name of the dtype of a node's value."""
        return str(self.values.of[node].dtype).removeprefix("torch.")

    def like(self, node: fx.Node, order: Sequence[int] | None = None) -> Held:
        """Adds a tensor for a node's value, with its axes in an order."""
        shape = self.shape(node)
        order = tuple(range(len(shape)) if order is None else order)
        return self.make([shape[axis] for axis in order], self.dtype_of(node), order)

    def give(self, node: fx.Node, held: Held) -> None:
        """Says which tensor holds a node's value."""
        (self._floats if held.grid is None else self._integers)[node] = held

    def give_parts(self, node: fx.Node, parts: Sequence[Held]) -> None:
        """Says which tensors hold the values of an op that has several."""
        self._parts[node] = parts

    def wait(self, node: fx.Node, pad: Pad) -> None:
        """Leaves a pad with zeros to whoever reads it."""
        inner = self._pads.get(pad.source)
        if inner is not None:
            amounts = [(a + c, b + d) for (a, b), (c, d) in zip(inner.amounts, pad.amounts, strict=True)]
            pad = Pad(inner.source, tuple(amounts))
        self._pads[node] = pad

    def unpadded(self, node: fx.Node) -> Pad:
        """Returns the zeros that wait around a value, and the value within them."""
        return self._pads.get(node) or Pad(node, ((0, 0),) * len(self.shape(node)))

    def _fill(self, node: fx.Node) -> None:
        pad = self._pads.pop(node)
        self._at, before = node, self._at
        self.give(node, self.padded(self.integers(pad.source) or self.held(pad.source), pad.amounts))
        self._at = before

    def padded(self, held: Held, amounts: Sequence[tuple[int, int]], value: float | None = None) -> Held:
        """Writes a PAD, with zeros or with another number; returns the value itself where nothing is added."""
        if not any(map(any, amounts)):
            return held
        rows = np.array([amounts[axis] for axis in held.order], np.int32)
        shape = [size + before + after for size, (before, after) in zip(self.file.shape(held.index), rows, strict=True)]
        dtype = self.file.dtype(held.index)
        made = self.make(shape, dtype, held.order, held.grid)
        inputs = [held.index, self.file.constant(rows, "paddings")]
        if value is None:
            self.file.op("PAD", inputs, [made.index], kind="PadOptions")
        else:
            filler = self.file.constant(np.array([value], dtype), "padding", held.grid)
            self.file.op("PADV2", [*inputs, filler], [made.index], kind="PadV2Options")
        return made

    # What may follow an op and becomes a part of it

    def clipped(self, node: fx.Node) -> tuple[fx.Node, int]:
        """Returns the last node that a float op can compute on the way, a clip or itself, and the schema's activation."""
        user = next(iter(node.users)) if len(node.users) == 1 else None
        if user is None or user.target not in CLIPS:
            return node, 0
        activation = _FUSED.get(CLIPS[user.target](user) or (1.0, 0.0))
        if activation is None:
            return node, 0
        self._done.add(user)
        return user, activation

    def rounded(self, node: fx.Node) -> tuple[fx.Node, Grid] | None:
        """Returns the node that rounds a value, behind clips that only it reads, and the grid; None where nothing does.

        The codes that the clips leave are all that the grid uses.
        """
        low, high, passed = -math.inf, math.inf, []
        end = node
        while len(end.users) == 1 and (user := next(iter(end.users))).target in CLIPS:
            bounds = CLIPS[user.target](user)
            if bounds is None:
                return None
            low, high = (min(max(bound, bounds[0]), bounds[1]) for bound in (low, high))
            end = user
            passed.append(user)
        users = list(end.users)
        if not users or any(user.target is not QUANTIZE or user.args[1:] != users[0].args[1:] for user in users):
            return None
        grid = grid_of(users[0])
        if grid is None:
            return None
        self._done.update(passed, users)
        self._alike[users[0]] = users[1:]
        return users[0], within(grid, (low, high))

    def give_rounded(self, node: fx.Node, held: Held) -> None:
        """Says which tensor holds what a rounding gives; where the grid uses fewer codes, a clip is written first."""
        held = self.limited(held)
        self._integers[node] = held
        for other in self._alike.get(node, ()):
            self._integers[other] = held

    def limited(self, held: Held) -> Held:
        """Returns integers that keep to the codes that their grid uses."""
        grid = held.grid
        assert grid is not None
        for name, bound, unused in (("MAXIMUM", grid.low, -128), ("MINIMUM", grid.high, 127)):
            if bound != unused:
                made = self.make(self.file.shape(held.index), "int8", held.order, grid)
                constant = self.file.constant(np.array([bound], np.int8), "bound", grid)
                self.file.op(name, [held.index, constant], [made.index], kind="MaximumMinimumOptions")
                held = made
        return held


def grid_of(node: fx.Node) -> Grid | None:
    """Returns the grid of a node that rounds or restores a value, as signed bytes; None where it has more bits."""
    scale, zero, low, high, dtype = node.args[1:6]
    if dtype not in (torch.int8, torch.uint8):
        return None
    shift = 128 if dtype is torch.uint8 else 0
    return Grid(float(scale), zero - shift, low - shift, high - shift)  # type: ignore[arg-type, operator]


def within(grid: Grid, bounds: Interval) -> Grid:
    """Returns a grid of which only the codes of real numbers between two bounds are used, or the nearest end of the grid."""
    assert isinstance(grid.scale, float)
    low, high = (int(np.clip(np.round(bound / grid.scale) + grid.zero, grid.low, grid.high)) for bound in bounds)
    return replace(grid, low=low, high=high)


@cache
def _decompositions(rules: Callable[[Any], Rule | None]) -> dict[Any, Any]:
    """Returns PyTorch's ways to write ops in simpler ones, but for ops that have rules."""
    tables = (torch._decomp.core_aten_decompositions(), torch._decomp.decomposition_table)
    return {op: function for table in tables for op, function in table.items() if rules(op) is None}


class NoRule(PenjingError):
    """An op has no rule, and PyTorch knows no simpler ops for it either.

    Attributes:
        node: the graph's node.
        target: what has no rule: the op, or one of the ops that it is made of.
    """

    def __init__(self, node: fx.Node, target: Any = None) -> None:
        self.node, self.target = node, target or node.target
        super().__init__(f"no rule for {self.target}")
