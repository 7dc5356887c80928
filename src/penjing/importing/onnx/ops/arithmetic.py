"""Arithmetic and comparisons, entry by entry."""

import functools
import operator
from typing import Any

import onnx
import torch
from torch import Tensor

from penjing.importing.onnx.node import Form, Node, no_form
from penjing.importing.onnx.ops.table import FORMS, form, functions

FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}  # all become float32
DTYPES = {
    **dict.fromkeys(FLOATS, torch.float32),
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


def divide(x: Any, y: Any) -> Any:
    """Divides; whole numbers are rounded towards 0."""
    whole = [
        isinstance(one, int | torch.SymInt) or (isinstance(one, Tensor) and not one.is_floating_point())
        for one in (x, y)
    ]
    if not all(whole):
        return x / y
    return torch.div(x, y, rounding_mode="trunc") if isinstance(x, Tensor) or isinstance(y, Tensor) else x // y


def power(x: Any, y: Any) -> Any:
    """Powers; squares and square roots as such."""
    if isinstance(y, int | float) and isinstance(x, Tensor):
        return x * x if y == 2 else x.sqrt() if y == 0.5 else x**y
    return torch.pow(x, y).to(x.dtype) if isinstance(x, Tensor) else torch.pow(x, y)


functions(
    Add=operator.add,
    Sub=operator.sub,
    Mul=operator.mul,
    Div=divide,
    Pow=power,
    Neg=torch.neg,
    Abs=torch.abs,
    Sqrt=torch.sqrt,
    Exp=torch.exp,
    Log=torch.log,
    Reciprocal=torch.reciprocal,
    Floor=torch.floor,
    Ceil=torch.ceil,
    Round=torch.round,
    Sign=torch.sign,
    Sin=torch.sin,
    Cos=torch.cos,
    Atan=torch.atan,
    Identity=lambda x: x,
    Sum=lambda *xs: functools.reduce(operator.add, xs),
    Mean=lambda *xs: functools.reduce(operator.add, xs) / len(xs),
    Equal=lambda x, y: x == y,
    Greater=operator.gt,
    GreaterOrEqual=operator.ge,
    Less=operator.lt,
    LessOrEqual=operator.le,
    Not=torch.logical_not,
    And=torch.logical_and,
    Or=torch.logical_or,
    Xor=torch.logical_xor,
    IsNaN=torch.isnan,
    Where=torch.where,
)


def _extreme(call: Any, clamp: str) -> Any:
    def pair(x: Any, y: Any) -> Any:
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return call(x, y)
        return torch.clamp(x, **{clamp: y}) if isinstance(x, Tensor) else torch.clamp(y, **{clamp: x})

    return lambda *xs: functools.reduce(pair, xs)


FORMS["Max"] = lambda node: node.function(_extreme(torch.maximum, "min"), *node.operands())
FORMS["Min"] = lambda node: node.function(_extreme(torch.minimum, "max"), *node.operands())


@form("Dropout")
def dropout(node: Node) -> Form:
    """Nothing: a file is for inference."""
    return node.function(lambda x: x, node.tensor(0))


@form("Mod")
def mod(node: Node) -> Form:
    """The rest of a division, with the sign of the divisor, or of the dividend."""
    return node.function(torch.fmod if node.attribute("fmod", 0) else torch.remainder, *node.operands())


@form("Cast")
def cast(node: Node) -> Form:
    """Another type of numbers; those of 16 bits become float32."""
    dtype = DTYPES.get(node.attribute("to"))
    if dtype is None:
        raise no_form(node, f"PyTorch has no {onnx.TensorProto.DataType.Name(node.attribute('to'))} to cast to")
    return node.function(
        lambda x: x.to(dtype) if isinstance(x, Tensor) else torch.full((), x, dtype=dtype), node.tensor(0)
    )


@form("CastLike")
def cast_like(node: Node) -> Form:
    """The type of numbers of another value."""
    return node.function(lambda x, like: x.to(like.dtype), node.tensor(0), node.tensor(1))
