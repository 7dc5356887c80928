"""Arithmetic with sizes, in Python: what stands between Shape and Reshape.

The arrays hold whole numbers or the symbolic ones of `torch.export`; see `values`.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.importing.onnx.node import Form, Node, no_form
from penjing.importing.onnx.ops.arithmetic import DTYPES
from penjing.importing.onnx.ops.table import form, on_sizes
from penjing.importing.onnx.values import Value, numbers, sizes

MOST_MADE = 2**27  # entries of a tensor that a node makes of sizes alone: 512 MiB in float32
MOST_AXES = 16  # of a tensor in a real network, so that a row of as many numbers may be a shape


@form("Shape")
def shape(node: Node) -> Form:
    """The sizes of a tensor's axes."""
    start, end = node.attribute("start", 0), node.attribute("end")
    return node.function(lambda x: sizes(list(x.shape)[start:end]), node.raw(0))


@form("Size")
def size(node: Node) -> Form:
    """How many entries a tensor has."""
    return node.function(lambda x: sizes([math.prod(x.shape)]).reshape(()), node.raw(0))


def _made(shape: Value) -> list[Any]:
    """Returns the shape of a tensor that is made.

    Raises:
        ValueError: it is too large for a file's few bytes.
    """
    wanted = numbers(shape)  # type: ignore[arg-type]
    known = math.prod(one for one in wanted if isinstance(one, int))
    if known > MOST_MADE:
        raise ValueError(f"it makes a tensor of the shape {wanted}, larger than any network needs")
    return wanted


@form("ConstantOfShape")
def constant_of_shape(node: Node) -> Form:
    """A tensor of one value."""
    return node.function(lambda shape: _filled(node.attribute("value"), shape), node.raw(0))


def _filled(value: np.ndarray | None, shape: Value) -> Tensor:
    filling = torch.zeros(1) if value is None else torch.from_numpy(np.array(value))
    return torch.full(_made(shape), filling.item(), dtype=filling.dtype)


@on_sizes("ConstantOfShape")
def _filled_sizes(node: Node, shape: np.ndarray) -> Any:
    """Makes sizes where they may be meant: a few whole numbers in a row."""
    value, wanted = node.attribute("value"), numbers(shape)
    is_row = len(wanted) == 1 and isinstance(wanted[0], int) and wanted[0] <= MOST_AXES
    if is_row and value is not None and value.dtype.kind == "i":
        return sizes([int(value.reshape(-1)[0])] * wanted[0])
    return _filled(value, shape)


@form("Range")
def numbers_in_range(node: Node) -> Form:
    """Numbers from one to another."""
    if any(isinstance(one, Tensor) for one in node.inputs):
        raise no_form(node, "its bounds depend on values, not only on shapes of the inputs")
    dtype = torch.from_numpy(
        np.zeros(1, next((x.dtype for x in node.inputs if x.dtype != object), np.dtype("int64")))
    ).dtype

    def compute(*bounds: np.ndarray) -> Tensor:
        start, end, step = (numbers(one)[0] for one in bounds)
        if isinstance(start, int | float) and isinstance(end, int | float):
            _made(sizes([int(abs((end - start) / step))]))
        return torch.arange(start, end, step, dtype=dtype)

    return node.function(compute, node.raw(0), node.raw(1), node.raw(2))


@on_sizes("Gather")
def _gather(node: Node, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    return _array(np.take(x, index.astype(np.int64), axis=node.attribute("axis", 0)))


def _array(value: Any) -> np.ndarray:
    """Returns an array of sizes also where NumPy gives the only entry itself."""
    if isinstance(value, np.ndarray):
        return value.astype(object)
    made = np.empty((), dtype=object)
    made[()] = value
    return made


@on_sizes("Concat")
def _concat(node: Node, *xs: np.ndarray) -> np.ndarray:
    return np.concatenate([x.astype(object) for x in xs], axis=node.attribute("axis"))


@on_sizes("Slice")
def _slice(node: Node, x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    starts, ends = node.setting("starts", 1), node.setting("ends", 2)
    axes, steps = node.setting("axes", 3, list(range(len(starts)))), node.setting("steps", 4, [1] * len(starts))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        end = None if step < 0 and end < -(2**31) else end
        x = x[(slice(None),) * (axis % x.ndim) + (slice(start, end, step),)]
    return x


@on_sizes("Squeeze")
def _squeeze(node: Node, x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    axes = node.setting("axes", 1)
    return _array(x.squeeze(None if axes is None else tuple(axes)))


@on_sizes("Unsqueeze")
def _unsqueeze(node: Node, x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    return np.expand_dims(x, tuple(node.setting("axes", 1)))


@on_sizes("Reshape")
def _reshape(_node: Node, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return x.reshape(tuple(numbers(shape)))


@on_sizes("Identity", "CastLike")
def _same(_node: Node, x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    return x


@on_sizes("Cast")
def _cast(node: Node, x: np.ndarray) -> np.ndarray:
    dtype = DTYPES.get(node.attribute("to"))
    if dtype is None or dtype is torch.bool:
        return x
    return _each(torch.sym_float if dtype.is_floating_point else torch.sym_int, x)


def _each(call: Any, *xs: np.ndarray) -> np.ndarray:
    """Calls a function for each entry of arrays of sizes."""
    broadcast = np.broadcast_arrays(*(x.astype(object) for x in xs))
    made = np.empty(broadcast[0].shape, dtype=object)
    for index in np.ndindex(made.shape):
        made[index] = call(*(x[index] for x in broadcast))
    return made


def _quotient(x: Any, y: Any) -> Any:
    floats = float | torch.SymFloat
    return x / y if isinstance(x, floats) or isinstance(y, floats) else x // y


ARITHMETIC = {
    "Add": lambda x, y: x + y,
    "Sub": lambda x, y: x - y,
    "Mul": lambda x, y: x * y,
    "Div": _quotient,
    "Mod": lambda x, y: x % y,
    "Max": lambda x, y: x if x is y else torch.sym_max(x, y),
    "Min": lambda x, y: x if x is y else torch.sym_min(x, y),
    "Neg": lambda x: -x,
    "Floor": lambda x: torch.sym_float(math.floor(x)),
    "Ceil": lambda x: torch.sym_float(math.ceil(x)),
    "Sqrt": lambda x: math.sqrt(x) if isinstance(x, float) else torch.sym_float(x) ** 0.5,
    "Equal": lambda x, y: x == y,
    "Greater": lambda x, y: x > y,
    "Less": lambda x, y: x < y,
    "Not": lambda x: not x,
    "Where": lambda which, x, y: x if which else y,
}

for _op, _call in ARITHMETIC.items():
    on_sizes(_op)(lambda _node, *xs, call=_call: _each(call, *xs))


@on_sizes("ReduceProd")
def _product(node: Node, x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    made = _array(math.prod(numbers(x)))
    return made.reshape((1,) * x.ndim) if node.attribute("keepdims", 1) else made


@on_sizes("Split")
def _split(node: Node, x: np.ndarray, *_: np.ndarray) -> tuple[np.ndarray, ...]:
    parts = node.setting("split", 1)
    where = len(node.outputs) if parts is None else np.cumsum(parts)[:-1]
    return tuple(np.split(x, where, axis=node.attribute("axis", 0)))
