"""Shapes: reshaping, transposing, joining, cutting and padding."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from penjing.importing.onnx.node import Form, Node, no_form
from penjing.importing.onnx.ops.table import form
from penjing.importing.onnx.values import Value, numbers

PADS = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@form("Reshape")
def reshape(node: Node) -> Form:
    """Another shape; 0 keeps an axis as it is."""
    keep = not node.attribute("allowzero", 0)
    frees = node.frees_batch

    def compute(x: Tensor, shape: Value) -> Tensor:
        wanted = _shape(shape)
        if frees and isinstance(shape, np.ndarray) and shape.dtype != object and wanted[:1] == [1]:
            wanted[0] = x.shape[0] if -1 in wanted else -1
        kept = [
            x.shape[axis] if keep and isinstance(size, int) and size == 0 else size for axis, size in enumerate(wanted)
        ]
        return x.reshape(kept)

    return node.function(compute, node.tensor(0), node.raw(1))


def _shape(value: Value) -> list[Any]:
    """Returns a shape's entries, of which those that the network computes must be sizes, not tensors."""
    if isinstance(value, Tensor):
        raise ValueError("a shape depends on values, not only on shapes of the inputs")
    assert value is not None
    return numbers(value)


@form("Flatten")
def flatten(node: Node) -> Form:
    """A matrix: the axes before one, and those from it on."""
    axis = node.attribute("axis", 1)
    if axis % node.rank() == 1:
        return node.function(lambda x: x.flatten(1) if x.ndim > 1 else x.reshape(-1, 1), node.tensor(0))

    def compute(x: Tensor) -> Tensor:
        at = axis + x.ndim if axis < 0 else axis
        return x.reshape(1, -1) if at == 0 else x.flatten(0, at - 1).flatten(1) if at < x.ndim else x.reshape(-1, 1)

    return node.function(compute, node.tensor(0))


@form("Transpose")
def transpose(node: Node) -> Form:
    """Another order of axes."""
    order = list(node.attribute("perm", range(node.rank() - 1, -1, -1)))
    if order == list(range(node.rank())):
        return node.function(lambda x: x, node.tensor(0))
    return node.function(lambda x: x.permute(order), node.tensor(0))


@form("Squeeze")
def squeeze(node: Node) -> Form:
    """Without axes of size 1."""
    axes = node.setting("axes", 1)
    if axes is None:
        axes = [axis for axis, size in enumerate(node.inputs[0].shape) if size == 1 and axis > 0]
    return node.function(lambda x: x.squeeze(tuple(axes)), node.tensor(0))


@form("Unsqueeze")
def unsqueeze(node: Node) -> Form:
    """With more axes of size 1."""
    axes = node.setting("axes", 1)
    rank = node.rank() + len(axes)
    places = sorted(axis % rank for axis in axes)

    def compute(x: Any) -> Any:
        x = x if isinstance(x, Tensor) else torch.full((), x)
        for axis in places:
            x = x.unsqueeze(axis)
        return x

    return node.function(compute, node.tensor(0))


@form("Concat")
def concat(node: Node) -> Form:
    """Values side by side."""
    axis = node.attribute("axis")

    if not node.frees_batch or axis % node.rank() == 0:
        return node.function(lambda *xs: torch.cat(xs, axis))
    flows = [place for place in range(len(node.inputs)) if node.constant(place) is None]

    def compute(*xs: Tensor) -> Tensor:
        batch = xs[flows[0]].shape[0]
        return torch.cat([x if place in flows else x.expand(batch, *x.shape[1:]) for place, x in enumerate(xs)], axis)

    return node.function(compute)


@form("Split")
def split(node: Node) -> Form:
    """Parts along an axis."""
    axis = node.attribute("axis", 0)
    parts = node.setting("split", 1)
    count = len(node.outputs)
    if parts is None:
        size = int(node.inputs[0].shape[axis])
        step = -(-size // node.attribute("num_outputs", count))
        parts = [min(step, size - start) for start in range(0, size, step)]
    return node.function(lambda x: tuple(x.split(parts, axis)), node.tensor(0))


@form("Slice")
def cut(node: Node) -> Form:
    """A part of each of some axes."""
    starts, ends = node.setting("starts", 1), node.setting("ends", 2)
    axes = node.setting("axes", 3, list(range(len(starts))))
    steps = node.setting("steps", 4, [1] * len(starts))
    if any(
        step < 0 and (start not in (-1,) or end > -(2**31))
        for start, end, step in zip(starts, ends, steps, strict=True)
    ):
        backwards = [step for step in steps if step < 0]
        raise no_form(node, f"it goes backwards (steps {backwards}) over a part of an axis")

    def compute(x: Tensor, first: Value, last: Value) -> Tensor:
        # Sizes among the bounds must be those of this call.
        bounds = [starts if first is None else numbers(first), ends if last is None else numbers(last)]  # type: ignore[arg-type]
        for start, end, axis, step in zip(*bounds, axes, steps, strict=True):
            at = axis % x.ndim
            index = (slice(None),) * at
            x = (
                x.flip(at)[(*index, slice(None, None, -step))]
                if step < 0
                else x[(*index, slice(start, _end(end), step))]
            )
        return x

    return node.function(compute, node.tensor(0), node.raw(1), node.raw(2))


def _end(end: Any) -> Any:
    return None if isinstance(end, int) and end >= 2**31 - 1 else end


@form("Expand")
def expand(node: Node) -> Form:
    """Repeated along axes of size 1, as in arithmetic with a tensor of that shape."""

    def compute(x: Tensor, shape: Value) -> Tensor:
        wanted = _shape(shape)
        wanted = [1] * (x.ndim - len(wanted)) + wanted
        own = [1] * (len(wanted) - x.ndim) + list(x.shape)
        return x.expand(
            [mine if isinstance(size, int) and size == 1 else size for size, mine in zip(wanted, own, strict=True)]
        )

    return node.function(compute, node.tensor(0), node.raw(1))


@form("Tile")
def tile(node: Node) -> Form:
    """Repeated as a whole along each axis."""
    return node.function(lambda x, times: x.repeat(_shape(times)), node.tensor(0), node.raw(1))


@form("Pad")
def pad(node: Node) -> Form:
    """More entries at the ends of axes."""
    mode = node.attribute("mode", "constant")
    if mode not in PADS:
        raise no_form(node, f"it pads by '{mode}'")
    pads = node.setting("pads", 1)
    value = node.attribute("value", 0.0)
    if node.has(2):
        value = node.wanted_constant(2).reshape(()).item()
    axes = [axis % node.rank() for axis in node.setting("axes", 3, list(range(node.rank())))]
    before, after = [0] * node.rank(), [0] * node.rank()
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[place + len(axes)]
    return node.function(lambda x: padded(x, before, after, PADS[mode], value), node.tensor(0))


def padded(x: Tensor, before: list[Any], after: list[Any], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Returns `x` with so many entries more at both ends of each of its last axes."""
    ends = [one for pair in zip(reversed(before), reversed(after), strict=True) for one in pair]
    while ends[-2:] == [0, 0]:
        del ends[-2:]
    if not ends:
        return x
    return functional.pad(x, ends, value=value) if mode == "constant" else functional.pad(x, ends, mode)


@form("DepthToSpace")
def depth_to_space(node: Node) -> Form:
    """Channels to pixels."""
    size = node.attribute("blocksize")
    if node.attribute("mode", "DCR") == "CRD":
        return node.function(functional.pixel_shuffle, node.tensor(0), size)

    def compute(x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        x = x.reshape(-1, size, size, channels // size**2, height, width).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(-1, channels // size**2, height * size, width * size)

    return node.function(compute, node.tensor(0))


@form("SpaceToDepth")
def space_to_depth(node: Node) -> Form:
    """Pixels to channels."""
    size = node.attribute("blocksize")

    def compute(x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        x = x.reshape(-1, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(-1, channels * size**2, height // size, width // size)

    return node.function(compute, node.tensor(0))


@form("Trilu")
def triangle(node: Node) -> Form:
    """The upper or the lower triangle of matrices."""
    (diagonal,) = node.setting("k", 1, [0])
    call: Any = torch.triu if node.attribute("upper", 1) else torch.tril
    return node.function(lambda x: call(x, diagonal), node.tensor(0))


@form("Einsum")
def einsum(node: Node) -> Form:
    """Sums of products by an equation."""
    equation = node.attribute("equation")
    return node.function(lambda *xs: torch.einsum(equation, *xs))
