"""Ops that act on entries one by one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx

from penjing.graph.clips import CLIPS
from penjing.targets.litert._file import DTYPES, Grid
from penjing.targets.litert._lowering import Held, Lowering, NoRule, Rule, within
from penjing.targets.litert.rules._table import rule

aten = torch.ops.aten

# The kernels of these ops give integers on one grid alone, whatever the range of their values.
_FIXED_GRIDS = {"LOGISTIC": Grid(1 / 256, -128), "TANH": Grid(1 / 128, 0)}


def unary(name: str, *targets: Any, kind: str | None = None, integer: bool = False, **options: Any) -> None:
    """Registers ops of one tensor.

    Args:
        name: the op in the schema.
        *targets: the ATen ops.
        kind: the schema's name of its options.
        integer: whether its kernel takes and gives integers.
        **options: the options.
    """

    @rule(*targets)
    def write(lowering: Lowering, node: fx.Node) -> None:
        entrywise(lowering, node, node.args[0], name, integer=integer, kind=kind, **options)


def entrywise(
    lowering: Lowering,
    node: fx.Node,
    x: Any,
    name: str,
    *,
    integer: bool = False,
    kind: str | None = None,
    **options: Any,
) -> None:
    """Writes an op of one tensor, in integers where both sides are rounded and its kernel can."""
    held = lowering.integers(x) if integer else None
    rounded = lowering.rounded(node) if held is not None else None
    if held is None or rounded is None:
        held = lowering.held(x)
        made = lowering.make(lowering.file.shape(held.index), lowering.dtype_of(node), held.order)
        lowering.file.op(name, [held.index], [made.index], kind=kind, **options)
        lowering.give(node, made)
        return
    end, grid = rounded
    fixed = _FIXED_GRIDS.get(name)
    own = grid if fixed is None else fixed
    made = lowering.make(lowering.file.shape(held.index), "int8", held.order, own)
    lowering.file.op(name, [held.index], [made.index], kind=kind, **options)
    if fixed is not None and fixed != grid:
        other = lowering.make(lowering.file.shape(made.index), "int8", made.order, grid)
        lowering.file.op("QUANTIZE", [made.index], [other.index], kind="QuantizeOptions")
        made = other
    lowering.give_rounded(end, replace(made, grid=grid))


for _name, _targets, _kind, _integer in (
    ("LOGISTIC", (aten.sigmoid.default,), None, True),
    ("TANH", (aten.tanh.default,), None, True),
    ("EXP", (aten.exp.default,), "ExpOptions", False),
    ("LOG", (aten.log.default,), None, False),
    ("SQRT", (aten.sqrt.default,), None, False),
    ("RSQRT", (aten.rsqrt.default,), None, False),
    ("ABS", (aten.abs.default,), None, False),
    ("NEG", (aten.neg.default,), "NegOptions", False),
    ("SIN", (aten.sin.default,), None, False),
    ("COS", (aten.cos.default,), "CosOptions", False),
    ("FLOOR", (aten.floor.default,), None, False),
    ("CEIL", (aten.ceil.default,), None, False),
    ("ROUND", (aten.round.default,), None, False),
    ("SIGN", (aten.sign.default,), "SignOptions", False),
    ("LOGICAL_NOT", (aten.logical_not.default, aten.bitwise_not.default), "LogicalNotOptions", False),
    ("HARD_SWISH", (aten.hardswish.default,), "HardSwishOptions", True),
):
    unary(_name, *_targets, kind=_kind, integer=_integer)


@rule(aten.gelu.default)
def gelu(lowering: Lowering, node: fx.Node) -> None:
    """Writes GELU."""
    approximate = node.kwargs.get("approximate", "none") == "tanh"
    entrywise(lowering, node, node.args[0], "GELU", kind="GeluOptions", approximate=approximate)


@rule(aten.leaky_relu.default)
def leaky_relu(lowering: Lowering, node: fx.Node) -> None:
    """Writes LEAKY_RELU."""
    x, slope = lowering.arguments(node)
    entrywise(lowering, node, x, "LEAKY_RELU", integer=True, kind="LeakyReluOptions", alpha=float(slope))


@rule(aten.elu.default)
def elu(lowering: Lowering, node: fx.Node) -> None:
    """Writes ELU."""
    x, *scales = lowering.arguments(node)
    if scales != [1, 1, 1]:
        raise NoRule(node, f"{node.target} with scales")
    entrywise(lowering, node, x, "ELU")


@rule(*CLIPS)
def clip(lowering: Lowering, node: fx.Node) -> None:
    """Writes RELU, RELU6 or a pair of MAXIMUM and MINIMUM."""
    bounds = CLIPS[node.target](node)
    if bounds is None:
        raise NoRule(node, f"{node.target} with bounds that are computed at run time")
    named = {(0.0, math.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}.get(bounds)
    x: Any = node.args[0]
    if (
        lowering.dtype_of(node) == "float32"
        and lowering.integers(x) is not None
        and _clip_of_integers(lowering, node, x)
    ):
        return
    if named is not None and lowering.dtype_of(node) == "float32":
        entrywise(lowering, node, x, named)
        return
    held = lowering.held(x)
    for name, bound in (("MAXIMUM", bounds[0]), ("MINIMUM", bounds[1])):
        if math.isfinite(bound):
            dtype = lowering.dtype_of(node)
            made = lowering.make(lowering.file.shape(held.index), dtype, held.order)
            constant = lowering.fixed(np.array([bound]), dtype)
            lowering.file.op(name, [held.index, constant.index], [made.index], kind="MaximumMinimumOptions")
            held = made
    lowering.give(node, held)


def _clip_of_integers(lowering: Lowering, node: fx.Node, x: fx.Node) -> bool:
    """Writes a clip of integers that are rounded anew behind it; says no where they aren't."""
    rounded = lowering.rounded(node)
    held = lowering.integers(x)
    if rounded is None or held is None:
        return False
    end, grid = rounded
    bounds: Any = CLIPS[node.target](node)
    made = lowering.make(lowering.file.shape(held.index), "int8", held.order, grid)
    lowering.file.op("QUANTIZE", [held.index], [made.index], kind="QuantizeOptions")
    lowering.give_rounded(end, replace(made, grid=within(grid, bounds)))
    return True


# Ops of two tensors


def binary(name: str, *targets: Any, kind: str | None = None, integer: bool = False, clips: bool = False) -> Rule:
    """Registers ops of two tensors, or of a tensor and a number.

    Args:
        name: the op in the schema.
        *targets: the ATen ops.
        kind: the schema's name of its options.
        integer: whether its kernel takes and gives integers.
        clips: whether it can compute a clip behind it on the way.
    """

    @rule(*targets)
    def write(lowering: Lowering, node: fx.Node) -> None:
        left, right, *rest = lowering.arguments(node)
        alpha = rest[0] if rest and node.target in _SCALED else 1
        if alpha != 1:
            lowering.expand(node, lambda a, b, alpha: node.target(a, b * alpha))  # type: ignore[operator]
            return
        pairwise(lowering, node, left, right, name, kind=kind, integer=integer, clips=clips)

    return write


_SCALED = {aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar, aten.sub.Scalar}


def pairwise(
    lowering: Lowering,
    node: fx.Node,
    left: Any,
    right: Any,
    name: str,
    *,
    kind: str | None,
    integer: bool = False,
    clips: bool = False,
) -> None:
    """Writes an op of two tensors; in integers where all sides are rounded and its kernel can."""
    given = [left, right]
    if integer and all(lowering.integers(one) is not None for one in given):
        rounded = lowering.rounded(node)
        if rounded is not None:
            integers = [lowering.integers(one) for one in given]
            order, operands = together(lowering, [held for held in integers if held is not None], lowering.shape(node))
            end, grid = rounded
            shape = lowering.shape(node)
            made = lowering.make([shape[axis] for axis in order], "int8", order, grid)
            lowering.file.op(name, [held.index for held in operands], [made.index], kind=kind)
            lowering.give_rounded(end, made)
            return
    dtype = _common(lowering, given)
    order, operands = _floats_together(lowering, given, lowering.shape(node), dtype)
    end, activation = lowering.clipped(node) if clips and lowering.dtype_of(node) == "float32" else (node, 0)
    made = lowering.like(node, order)
    options = {"fusedActivationFunction": activation} if clips else {}
    lowering.file.op(name, [held.index for held in operands], [made.index], kind=kind, **options)
    lowering.give(end, made)


def _common(lowering: Lowering, given: Sequence[Any]) -> str:
    """Returns NumPy's name of the dtype in which PyTorch computes with operands."""
    values = [lowering.values.of[one] if isinstance(one, fx.Node) else one for one in given]
    return str(torch.result_type(*values)).removeprefix("torch.")


def _floats_together(
    lowering: Lowering, given: Sequence[Any], shape: Sequence[int], dtype: str
) -> tuple[tuple[int, ...], list[Held]]:
    """Returns one order of axes, and the operands in that order and dtype; constants are laid out in it once and for all."""
    flowing = [lowering.held(one) for one in given if isinstance(one, fx.Node)]
    flowing = [cast(lowering, held, dtype) for held in flowing]
    order, flowing = together(lowering, flowing, shape)
    left = iter(flowing)
    return order, [next(left) if isinstance(one, fx.Node) else _laid(lowering, one, dtype, order) for one in given]


def _laid(lowering: Lowering, constant: Any, dtype: str, order: Sequence[int]) -> Held:
    tensor = torch.as_tensor(constant)
    if tensor.dim() < 2 and (tensor.dim() == 0 or order[-1] == len(order) - 1):
        return lowering.fixed(tensor, dtype)
    wide = tensor.reshape((1,) * (len(order) - tensor.dim()) + tuple(tensor.shape))
    return lowering.fixed(wide, dtype, order)


def together(lowering: Lowering, operands: Sequence[Held], shape: Sequence[int]) -> tuple[tuple[int, ...], list[Held]]:
    """Returns one order of axes for operands that are broadcast to a shape, and the operands in that order."""
    rank = len(shape)
    full = [held for held in operands if len(held.order) == rank]
    sizes = {held: int(np.prod(lowering.file.shape(held.index))) for held in full}
    order = max(full, key=lambda held: sizes[held]).order if full else tuple(range(rank))
    found = []
    for held in operands:
        missing = rank - len(held.order)
        if missing and order != tuple(range(rank)):
            held = lowering.plain(held)
            held = lowering.reshaped(held, (*(1,) * missing, *lowering.file.shape(held.index)))
        found.append(lowering.ordered(held, order) if len(held.order) == rank else lowering.plain(held))
    return order, found


def cast(lowering: Lowering, held: Held, dtype: str) -> Held:
    """Writes a CAST, if a value has another dtype."""
    before = lowering.file.dtype(held.index)
    if before == dtype:
        return held
    made = lowering.make(lowering.file.shape(held.index), dtype, held.order)
    lowering.file.op(
        "CAST", [held.index], [made.index], kind="CastOptions", inDataType=DTYPES[before], outDataType=DTYPES[dtype]
    )
    return made


binary("ADD", aten.add.Tensor, aten.add.Scalar, kind="AddOptions", integer=True, clips=True)
binary("SUB", aten.sub.Tensor, aten.sub.Scalar, kind="SubOptions", integer=True, clips=True)
binary("MUL", aten.mul.Tensor, aten.mul.Scalar, kind="MulOptions", integer=True, clips=True)
binary("DIV", aten.div.Tensor, aten.div.Scalar, kind="DivOptions", clips=True)
binary("MAXIMUM", aten.maximum.default, kind="MaximumMinimumOptions")
binary("MINIMUM", aten.minimum.default, kind="MaximumMinimumOptions")
binary("FLOOR_DIV", aten.floor_divide.default, kind="FloorDivOptions")
binary("FLOOR_MOD", aten.remainder.Tensor, aten.remainder.Scalar, kind="FloorModOptions")
for _name, _op in (
    ("EQUAL", "eq"), ("NOT_EQUAL", "ne"), ("LESS", "lt"), ("LESS_EQUAL", "le"), ("GREATER", "gt"), ("GREATER_EQUAL", "ge")
):  # fmt: skip
    _words = "".join(word.capitalize() for word in _name.split("_"))
    binary(_name, getattr(aten, _op).Tensor, getattr(aten, _op).Scalar, kind=f"{_words}Options")
binary("LOGICAL_AND", aten.logical_and.default, aten.bitwise_and.Tensor, kind="LogicalAndOptions")
binary("LOGICAL_OR", aten.logical_or.default, aten.bitwise_or.Tensor, kind="LogicalOrOptions")


@rule(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor)
def power(lowering: Lowering, node: fx.Node) -> None:
    """Writes a product for squares, SQRT for roots, else POW."""
    x, exponent = lowering.arguments(node)
    number = exponent if isinstance(exponent, int | float) else None
    if number == 2:
        pairwise(lowering, node, x, x, "MUL", kind="MulOptions", clips=True)
    elif number == 0.5:
        entrywise(lowering, node, x, "SQRT")
    else:
        pairwise(lowering, node, x, exponent, "POW", kind="PowOptions")


@rule(aten.rsub.Scalar, aten.rsub.Tensor)
def reversed_difference(lowering: Lowering, node: fx.Node) -> None:
    """Writes SUB."""
    x, other, alpha = lowering.arguments(node)
    if alpha != 1:
        raise NoRule(node, f"{node.target} with a factor")
    pairwise(lowering, node, other, x, "SUB", kind="SubOptions", clips=True)


@rule(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def where(lowering: Lowering, node: fx.Node) -> None:
    """Writes SELECT_V2."""
    _select(lowering, node, *lowering.arguments(node))


@rule(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(lowering: Lowering, node: fx.Node) -> None:
    """Writes SELECT_V2."""
    x, mask, value = lowering.arguments(node)
    _select(lowering, node, mask, value, x)


def _select(lowering: Lowering, node: fx.Node, mask: Any, left: Any, right: Any) -> None:
    dtype, shape = lowering.dtype_of(node), lowering.shape(node)
    flowing = [
        lowering.held(one) if one is mask else cast(lowering, lowering.held(one), dtype)
        for one in (mask, left, right)
        if isinstance(one, fx.Node)
    ]
    order, flowing = together(lowering, flowing, shape)
    made_of = iter(flowing)
    operands = []
    for one, kind in ((mask, "bool"), (left, dtype), (right, dtype)):
        value = next(made_of) if isinstance(one, fx.Node) else _laid(lowering, one, kind, order)
        operands.append(value)
    made = lowering.like(node, order)
    lowering.file.op("SELECT_V2", [one.index for one in operands], [made.index], kind="SelectV2Options")
    lowering.give(node, made)


@rule(aten.to.dtype, aten.to.dtype_layout, aten._to_copy.default)
def to_dtype(lowering: Lowering, node: fx.Node) -> None:
    """Writes CAST, if the dtype changes."""
    source: Any = node.args[0]
    held = lowering.held(source)
    lowering.give(node, cast(lowering, held, lowering.dtype_of(node)))


@rule(aten.hardsigmoid.default)
def hardsigmoid(lowering: Lowering, node: fx.Node) -> None:
    """Writes clip(x + 3, 0, 6) / 6, in integers as two ops."""
    x: Any = node.args[0]
    held = lowering.integers(x)
    rounded = lowering.rounded(node) if held is not None else None
    if held is None or rounded is None:
        lowering.expand(node, lambda x: torch.clamp(x + 3.0, 0.0, 6.0) * (1 / 6))
        return
    end, grid = rounded
    shape = lowering.file.shape(held.index)
    between, three, sixth = Grid(6 / 255, -128), Grid(3 / 127), Grid(1 / 6 / 127)
    moved = lowering.make(shape, "int8", held.order, between)
    full = np.array([127], np.int8)
    lowering.file.op(
        "ADD", [held.index, lowering.file.constant(full, "three", three)], [moved.index], kind="AddOptions"
    )
    made = lowering.make(shape, "int8", held.order, grid)
    lowering.file.op(
        "MUL", [moved.index, lowering.file.constant(full, "sixth", sixth)], [made.index], kind="MulOptions"
    )
    lowering.give_rounded(end, made)
