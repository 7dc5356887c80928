"""Float weights that are a scale times an integer, as those behind a quantise/dequantise pair are after rounding.

The decoder multiplies in float32, as the dequantise op does. The encoder stores integers only where that gives the very bits
of the weight: a weight that still holds more than its integer says (one in training) is stored as any other array.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from penjing.errors import PenjingError
from penjing.storage.compact._array import Patterns, code_array, decode_array
from penjing.storage.compact._bytes import varint
from penjing.storage.compact._coder import Coded, Source

Floats = NDArray[np.float32]


class Arrays(Protocol):
    """Tensors by their place in a file, as far as they are decoded and can be scales or zero points."""

    def get(self, place: int) -> NDArray[Any] | None:
        """Returns one, or None."""


_SIGNED = {1: np.int8, 2: np.int16, 4: np.int32}
_NUMBERS, _TENSORS = 0, 1  # codes for where scale and zero point are stored
_PREFIX = "quantized_decomposed.quantize_"
_ARGUMENTS = 6  # arguments of each op: weight, scale, zero point, and integers, two of which are the bounds


@dataclass(frozen=True)
class QuantizeDequantize:
    """What stands behind a weight.

    Attributes:
        scale: a number, or the name of a tensor.
        zero: the zero point: a number, the name of a tensor, or None for zero.
        axis: which one has a scale for each index, or None.
        group: how many consecutive weights share a scale, or None.
        low: the smallest integer.
        high: the largest one.
    """

    scale: float | str
    zero: int | str | None
    axis: int | None
    group: int | None
    low: int
    high: int

    def named(self, ties: Mapping[str, str]) -> "QuantizeDequantize":
        """Returns the pair with the first names of its tensors."""
        scale, zero = (ties.get(v, v) if isinstance(v, str) else v for v in (self.scale, self.zero))
        return replace(self, scale=scale, zero=zero)


def pairs(nodes: list[dict[str, Any]]) -> dict[str, QuantizeDequantize]:
    """Returns the pair behind each tensor that one is behind, from the nodes of a file's description."""
    reads = {node["name"]: node["target"] for node in nodes if node["op"] == "get_attr"}
    found = {}
    for node in nodes:
        if not node["target"].startswith(_PREFIX) or len(node["args"]) < _ARGUMENTS:
            continue
        given, scale, zero, *rest = [
            reads.get(value["node"]) if isinstance(value, dict) and "node" in value else value for value in node["args"]
        ]
        kind = node["target"].removeprefix(_PREFIX).partition(".")[0]
        numbers = isinstance(scale, int | float) and isinstance(zero, int)
        if given is None or not (numbers if kind == "per_tensor" else isinstance(scale, str)):
            continue
        if kind == "per_tensor":
            found[given] = QuantizeDequantize(float(scale), zero, None, None, rest[0], rest[1])
        elif kind == "per_channel":
            found[given] = QuantizeDequantize(scale, zero, rest[0], None, rest[1], rest[2])
        elif kind == "per_channel_group" and len(rest) > 3:
            found[given] = QuantizeDequantize(scale, zero, None, rest[3], rest[0], rest[1])
    return found


def code_scaled(
    weight: Floats, pair: QuantizeDequantize, arrays: Mapping[str, NDArray[Any]], places: Mapping[str, int]
) -> Coded | None:
    """Codes a weight as the integers of its pair, or returns None where they don't give the very same bits.

    Args:
        weight: in its own shape.
        pair: behind it.
        arrays: the file's tensors that may be scales and zero points, by name.
        places: where those stand in the file.
    """
    grid = _grid(pair, arrays)
    if grid is None or not weight.size:
        return None
    scale, zero = grid
    try:
        steps, zeros = (_spread(values, weight.shape, pair.axis, pair.group) for values in (scale, zero))
    except PenjingError:
        return None
    lines = weight.reshape(-1, pair.group) if pair.group else weight
    with np.errstate(all="ignore"):
        integers = np.clip(np.nan_to_num(np.rint(lines / steps.astype(np.float64)) + zeros), pair.low, pair.high)
    width = next((w for w, dtype in _SIGNED.items() if _fits(integers, dtype)), None)
    if width is None:
        return None
    integers = integers.astype(_SIGNED[width])
    if _restore(integers, steps, zeros).tobytes() != weight.tobytes():
        return None
    coded = Coded()
    coded.side += (
        bytes([width]) + varint(0 if pair.axis is None else 1 + pair.axis % weight.ndim) + varint(pair.group or 0)
    )
    if isinstance(pair.scale, str):
        coded.side += bytes([_TENSORS]) + varint(places[pair.scale])
        coded.side += varint(1 + places[pair.zero] if isinstance(pair.zero, str) else 0)
    else:
        coded.side += bytes([_NUMBERS]) + struct.pack("<fi", scale.item(), int(zero.item()))
    unsigned = integers.reshape(-1).view(f"u{width}")
    coded.append(code_array(unsigned, weight.shape))
    return coded


def decode_scaled(source: Source, shape: tuple[int, ...], count: int, arrays: Arrays) -> Patterns:
    """Returns the bits of the weight that `code_scaled` coded.

    Args:
        source: is read.
        shape: the weight's.
        count: of its elements.
        arrays: the tensors decoded so far by their place in the file.
    """
    side = source.side
    width, axis, group = side.byte(), side.varint() - 1, side.varint()
    if width not in _SIGNED or axis >= len(shape) or (group and (axis >= 0 or not count or count % group)):
        raise PenjingError("the grid of a weight in it is damaged")
    scale, zero = _read_grid(source, arrays)
    limits = axis if axis >= 0 else None, group or None
    steps, zeros = _spread(scale, shape, *limits), _spread(zero, shape, *limits)
    integers = decode_array(source, width, shape, count).view(_SIGNED[width])
    with np.errstate(all="ignore"):
        restored = _restore(integers.reshape((-1, group) if group else shape), steps, zeros)
    return restored.reshape(-1).view(np.uint32)


def _read_grid(source: Source, arrays: Arrays) -> tuple[Floats, NDArray[Any]]:
    where = source.side.byte()
    if where == _NUMBERS:
        number, zero = struct.unpack("<fi", source.side.take(8))
        return np.full(1, number, np.float32), np.full(1, zero, np.int64)
    if where != _TENSORS:
        raise PenjingError("the grid of a weight in it is damaged")
    scale, at = arrays.get(source.side.varint()), source.side.varint()
    zeros = arrays.get(at - 1) if at else np.zeros(1, np.int64)
    if scale is None or scale.dtype != np.float32 or zeros is None or zeros.dtype.kind != "i":
        raise PenjingError("the grid of a weight in it is damaged")
    return scale, zeros


def _grid(pair: QuantizeDequantize, arrays: Mapping[str, NDArray[Any]]) -> tuple[Floats, NDArray[Any]] | None:
    """Returns scale and zero point of a pair as the decoder will find them, or None where it won't."""
    if not isinstance(pair.scale, str):
        small = -(2**31) <= int(pair.zero or 0) < 2**31
        return (np.full(1, pair.scale, np.float32), np.full(1, pair.zero or 0, np.int64)) if small else None
    scale = arrays.get(pair.scale)
    zero = arrays.get(pair.zero) if isinstance(pair.zero, str) else np.zeros(1, np.int64)
    if scale is None or zero is None or scale.dtype != np.float32 or zero.dtype.kind != "i":
        return None
    return scale, zero


def _spread(values: NDArray[Any], shape: tuple[int, ...], axis: int | None, group: int | None) -> NDArray[Any]:
    """Returns scales or zero points in a shape that broadcasts over the integers: one, one for each index, or for each group."""
    flat = values.reshape(-1)
    count = int(np.prod(shape, dtype=object))
    wanted = count // group if group else shape[axis] if axis is not None else 1
    if flat.size != 1 and (flat.size != wanted or (group and count % group)):
        raise PenjingError("the grid of a weight in it doesn't fit it")
    if flat.size == 1:
        return flat.reshape([1, 1] if group else [1] * len(shape))
    return flat.reshape([-1, 1] if group else [-1 if i == axis else 1 for i in range(len(shape))])


def _restore(integers: NDArray[Any], steps: Floats, zeros: NDArray[Any]) -> Floats:
    """Returns (q − z)·s in float32, as the dequantise op computes it."""
    restored: Floats = (integers.astype(np.float32) - zeros.astype(np.float32)) * steps.astype(np.float32)
    return restored


def _fits(integers: NDArray[Any], dtype: type[np.signedinteger]) -> bool:
    return bool(integers.min() >= np.iinfo(dtype).min and integers.max() <= np.iinfo(dtype).max)
