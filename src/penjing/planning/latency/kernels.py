"""Kernels: an op of a graph as a runtime executes it, described by nothing but shapes, settings and numbers."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from penjing import records
from penjing.graph import Graph, fold_batch_norms
from penjing.graph.cost import op_name
from penjing.graph.ops import CONVOLUTIONS, node_arguments
from penjing.graph.places import Json
from penjing.graph.propagation import at_batch_one
from penjing.planning.latency.resizing import Shape, channel_axis, scaled, with_size

aten = torch.ops.aten

FLOAT32, INT8 = "float32", "int8"
QUANTIZE, DEQUANTIZE = "quantize", "dequantize"

ROUNDING = "quantized_decomposed"  # PyTorch's namespace of the ops that quantise and dequantise
CLIPS = frozenset({"relu", "relu6", "hardtanh", "clamp"})
"""Activations that runtimes compute while they store what the op before made."""

FREE = frozenset(
    (
        "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "dropout", "feature_dropout", "contiguous", "clone",
        "detach", "getitem", "view", "alias", "sym_size", "identity", "_assert_tensor_metadata",
    )
)  # fmt: skip
"""Ops that only say anew how the same bytes are read, and ops that do nothing in evaluation mode."""

LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})


@dataclass(frozen=True)
class Kernel:
    """One op as a runtime executes it. Two ops that are equal in all of this take equally long.

    Attributes:
        op: short ATen name, such as "conv2d"; "quantize" and "dequantize" are what lies between float and integer ops.
        inputs: shapes of the tensors that flow in, for the batch that is measured.
        output: shape of the (first) tensor that comes out.
        weight: shape of the weight of a convolution or linear layer, `(out_channels, in_channels / groups, ...)`.
        stride: of a convolution, one number per spatial axis; so are `padding` and `dilation`.
        padding: see `stride`; "same" or "valid" where the model says so.
        dilation: see `stride`.
        groups: of a convolution.
        numbers: "float32" or "int8": what it computes in.
        activation: short name of the activation right behind a sum or product, which runtimes compute on the way; "" without
            one. Convolutions and linear layers have none: an activation behind them costs next to nothing.
        overload: the overload of other ops than convolutions and linear layers.
        arguments: JSON of the arguments of such an op: {"input": 0} and {"parameter": 0} stand for tensors.
        parameters: shapes of the parameters that such an op reads.
    """

    op: str
    inputs: tuple[Shape, ...]
    output: Shape
    weight: Shape = ()
    stride: Shape = ()
    padding: Shape | str = ()
    dilation: Shape = ()
    groups: int = 1
    numbers: str = FLOAT32
    activation: str = ""
    overload: str = ""
    arguments: str = ""
    parameters: tuple[Shape, ...] = ()

    @cached_property
    def key(self) -> str:
        """The kernel as a JSON text, the same for equal kernels."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, record: Json) -> "Kernel":
        """Makes a kernel from plain JSON.

        Raises:
            PenjingError: the JSON isn't a kernel's.
        """
        return records.convert(record, cls, "kernel", whole=True)

    @property
    def axis(self) -> int:
        """The axis of the output on which channels lie."""
        return 1 if self.op.startswith("conv") else channel_axis(len(self.output))

    @property
    def ins(self) -> int:
        """The number of channels that flow in."""
        return _at(self.inputs[0], self.axis) if self.inputs else self.outs

    @property
    def outs(self) -> int:
        """The number of channels that come out."""
        return _at(self.output, self.axis)

    @property
    def depthwise(self) -> bool:
        """Whether it is a convolution in which each channel is filtered by itself."""
        return self.groups > 1 and self.groups == self.ins

    @property
    def one_sided(self) -> bool:
        """Whether the number of channels that comes out follows from the number that flows in."""
        return not self.weight or self.depthwise

    @property
    def elements(self) -> int:
        """How many numbers come out."""
        return math.prod(self.output)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a convolution or linear layer; 0 for other ops."""
        return self.elements * math.prod(self.weight[1:]) if self.weight else 0

    def in_numbers(self, numbers: str) -> "Kernel":
        """Returns the kernel that computes in other numbers."""
        return replace(self, numbers=numbers)

    def resized(self, ins: int | None = None, outs: int | None = None) -> "Kernel":
        """Returns the kernel with other numbers of channels.

        Where one number follows from the other, as in depthwise convolutions, pooling, means and sums, one of the two is
        enough, and `ins` wins. Groups stay as many as they are, so that the numbers are rounded up to the next multiple of the
        groups.

        Args:
            ins: channels that flow in; as many as before by default.
            outs: channels that come out; as many as before by default.
        """
        if not self.weight:
            return scaled(self, outs if ins is None else ins)
        if self.depthwise:
            each = self.outs // self.groups
            given = ins if ins is not None else self.ins if outs is None else -(-outs // each)
            return self._with_channels(given, given * each, given)
        groups = self.groups
        ins, outs = (self.ins if ins is None else ins), (self.outs if outs is None else outs)
        return self._with_channels(-(-ins // groups) * groups, -(-outs // groups) * groups, groups)

    def _with_channels(self, ins: int, outs: int, groups: int) -> "Kernel":
        return replace(
            self,
            inputs=(with_size(self.inputs[0], self.axis, ins), *self.inputs[1:]),
            output=with_size(self.output, self.axis, outs),
            weight=(outs, ins // groups, *self.weight[2:]),
            groups=groups,
        )


def _at(shape: Shape, axis: int) -> int:
    return shape[axis] if axis < len(shape) else 1


def kernels_of(graph: Graph, batch: int = 1) -> dict[str, Kernel]:
    """Returns the kernels of a graph by the names of their nodes: all ops that take time and have shapes that are known.

    Batch norms are folded, and activations that runtimes compute on the way belong to the op before. In a quantised graph, an
    op whose inputs and output are rounded computes in int8, and a value that is float on one side only is a kernel "quantize"
    or "dequantize" under the name of the graph's node.

    Args:
        graph: in floating point or quantised.
        batch: samples per call; what the model fixes stays.
    """
    ready = fold_batch_norms(graph)
    number = at_batch_one(ready)

    def shape(node: fx.Node) -> Shape:
        sizes = _tensors(node.meta["val"])[0].shape
        return tuple(number(n) * batch if _is_batch(n, at) else number(n) for at, n in enumerate(sizes))

    integer = _integer_nodes(ready)
    found: dict[str, Kernel] = {}
    for node in ready.program.graph.nodes:
        if node.op != "call_function" or _constant(node):
            continue
        kernel = _boundary(node, integer, shape) if _rounds(node) else _kernel(node, shape)
        if kernel is not None:
            found[node.name] = kernel.in_numbers(INT8) if node in integer else kernel
    return found


def activations_of(graph: Graph) -> dict[str, str]:
    """Returns the nodes of activations that belong to the kernel of the op before, each with the node of that op."""
    found = {}
    for node in fold_batch_norms(graph).program.graph.nodes:
        if node.op == "call_function" and op_name(node) in CLIPS and _joins(node.args[0]):
            found[node.name] = node.args[0].name
    return found


def boundary(kernel: Kernel, op: str) -> Kernel:
    """Returns the kernel that rounds what a kernel puts out, or that makes floats of it.

    Args:
        kernel: the kernel whose output it is.
        op: "quantize" or "dequantize".
    """
    return Kernel(op, (kernel.output,), kernel.output)


def _is_batch(size: Any, axis: int) -> bool:
    return axis == 0 and isinstance(size, torch.SymInt)


def _rounds(node: fx.Node) -> bool:
    return getattr(node.target, "namespace", "") == ROUNDING


def _constant(node: fx.Node) -> bool:
    """Tells whether a node computes from weights alone: runtimes do so once, when they load the file."""
    return node.op == "get_attr" or (node.op == "call_function" and all(map(_constant, node.all_input_nodes)))


def _flowing(node: fx.Node) -> list[fx.Node]:
    return [source for source in node.all_input_nodes if not _constant(source)]


def _integer_nodes(graph: Graph) -> set[fx.Node]:
    """Returns the ops of a quantised graph that compute in integers, as their inputs and outputs are rounded.

    What an op without arithmetic passes on is as rounded as what it was given.
    """
    rounded: set[fx.Node] = set()
    integer: set[fx.Node] = set()
    for node in graph.program.graph.nodes:
        if node.op != "call_function" or _constant(node):
            continue
        inputs = _flowing(node)
        known = bool(inputs) and all(source in rounded for source in inputs)
        if _rounds(node) or (known and _passes(node)):
            rounded.add(node)
        if known and not _rounds(node) and (_passes(node) or _is_rounded(node) or _is_rounded_layer(node)):
            integer.add(node)
    return integer


def _is_rounded_layer(node: fx.Node) -> bool:
    return _layer(node) and isinstance(node.args[1], fx.Node) and _rounds(node.args[1])


def _is_rounded(node: fx.Node) -> bool:
    """Tells whether all that reads a value, behind activations that come along, reads it rounded."""
    users = list(node.users)
    while len(users) == 1 and op_name(users[0]) in CLIPS:
        users = list(users[0].users)
    return bool(users) and all(_rounds(user) for user in users)


def _passes(node: fx.Node) -> bool:
    """Tells whether an op only moves or selects values."""
    return op_name(node) in FREE | MOVES


MOVES = frozenset({"slice", "pad", "constant_pad_nd", "max_pool2d", "permute", "transpose", "chunk", "split"})


def _layer(node: fx.Node) -> bool:
    return node.target in CONVOLUTIONS or node.target is aten.linear.default


def _boundary(node: fx.Node, integer: set[fx.Node], shape: Any) -> Kernel | None:
    """Returns the kernel of a node that rounds, or makes floats, if only one side of it computes in integers."""
    if "dequantize" in op_name(node):
        readers = [user for user in node.users if not _rounds(user)]
        is_between = any(user not in integer for user in readers) if readers else not node.users
        return Kernel(DEQUANTIZE, (shape(node),), shape(node)) if is_between else None
    source = node.args[0]
    while isinstance(source, fx.Node) and op_name(source) in CLIPS and source not in integer:
        source = source.args[0]
    is_between = isinstance(source, fx.Node) and source not in integer
    return Kernel(QUANTIZE, (shape(node),), shape(node)) if is_between else None


def _kernel(node: fx.Node, shape: Any) -> Kernel | None:
    """Returns the kernel of an op, or None where it costs nothing, belongs to the op before, or can't be described."""
    name = op_name(node)
    flowing = _flowing(node)
    made = _tensors(node.meta.get("val"))
    if name in FREE or not flowing or not made:
        return None
    if name in CLIPS and _joins(flowing[0]):
        return None
    if not all(_is_float(source) for source in flowing) or not made[0].is_floating_point():
        return None
    output = shape(node)
    inputs = tuple(shape(source) for source in flowing)
    if _layer(node):
        return _of_layer(node, name, inputs, output)
    described = _described(node, flowing)
    if described is None:
        return None
    arguments, parameters = described
    activation = next((op_name(user) for user in node.users if op_name(user) in CLIPS), "") if _joins(node) else ""
    return Kernel(
        name, inputs, output, activation=activation, overload=str(node.target).rpartition(".")[2],
        arguments=json.dumps(arguments), parameters=parameters,
    )  # fmt: skip


def _of_layer(node: fx.Node, name: str, inputs: tuple[Shape, ...], output: Shape) -> Kernel:
    arguments = node_arguments(node)
    weight = tuple(int(n) for n in arguments[1].meta["val"].shape)
    if name == "linear":
        return Kernel(name, inputs[:1], output, weight)
    axes = len(weight) - 2

    def spread(value: Any) -> Shape:
        values = tuple(value) if isinstance(value, Sequence) else (value,)
        return values * axes if len(values) == 1 else values

    padding = arguments[4] if isinstance(arguments[4], str) else spread(arguments[4])
    return Kernel(name, inputs[:1], output, weight, spread(arguments[3]), padding, spread(arguments[5]), arguments[6])


def _joins(node: fx.Node) -> bool:
    """Tells whether runtimes compute the one activation behind an op on the way."""
    users = list(node.users)
    can = _layer(node) or op_name(node) in ("add", "mul", "sub")
    return can and len(users) == 1 and op_name(users[0]) in CLIPS


def _described(node: fx.Node, flowing: list[fx.Node]) -> tuple[list[Json], tuple[Shape, ...]] | None:
    """Returns the arguments of an op as JSON, and the shapes of its parameters; None where JSON can't say them."""
    parameters: list[Shape] = []

    def plain(value: Any) -> Iterator[Json]:
        if isinstance(value, fx.Node):
            if value in flowing:
                yield {"input": flowing.index(value)}
            elif isinstance(value.meta.get("val"), Tensor) and value.meta["val"].is_floating_point():
                parameters.append(tuple(int(n) for n in value.meta["val"].shape))
                yield {"parameter": len(parameters) - 1}
        elif value is None or isinstance(value, bool | int | float | str):
            yield value
        elif isinstance(value, list | tuple):
            inner = [list(plain(one)) for one in value]
            if all(inner):
                yield [one[0] for one in inner]

    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    found = [list(plain(value)) for value in node_arguments(node)]
    return ([one[0] for one in found], tuple(parameters)) if all(found) else None


def _tensors(value: Any) -> list[Tensor]:
    return [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, Tensor)]


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()
