"""Other numbers of channels in ops without weights: pools, means, sums, and what moves or pads values."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penjing.planning.latency.kernels import Kernel

Shape = tuple[int, ...]

PADS = frozenset({"pad", "constant_pad_nd"})


def scaled(kernel: "Kernel", channels: int | None) -> "Kernel":
    """Returns an op without a weight with another number of channels that come out.

    Of several inputs, each changes by its share.
    """
    if channels is None or channels == kernel.outs:
        return kernel
    before = kernel.outs

    def resize(shape: Shape) -> Shape:
        axis = _axis_in(kernel, shape)
        reduced = len(shape) != len(kernel.output)
        if not shape or shape[axis] == 1 or (reduced and shape[axis] != before):
            return shape
        return with_size(shape, axis, max(1, round(shape[axis] * channels / before)))

    inputs = tuple(map(resize, kernel.inputs))
    return replace(
        kernel,
        inputs=inputs,
        output=with_size(kernel.output, kernel.axis, channels),
        arguments=_arguments(kernel, inputs, channels),
        parameters=tuple(tuple(channels if n == before else n for n in shape) for shape in kernel.parameters),
    )


def channel_axis(axes: int) -> int:
    """Returns the axis on which channels lie, of so many axes: images have it behind the batch, tokens last."""
    return 1 if axes > 3 else axes - 1


def with_size(shape: Shape, axis: int, size: int) -> Shape:
    """Returns a shape of which one axis has another size."""
    changed = list(shape)
    changed[axis] = size
    return tuple(changed)


def _axis_in(kernel: "Kernel", shape: Shape) -> int:
    """Returns the axis of an input's shape on which the output's channels lie."""
    if len(shape) != len(kernel.output):  # a mean over height and width, or over tokens
        return channel_axis(len(shape))
    if kernel.op not in ("transpose", "permute"):
        return kernel.axis
    given, axes = json.loads(kernel.arguments)[1:], list(range(len(shape)))
    if kernel.op == "permute":
        axes = given[0]
    else:
        axes[given[0]], axes[given[1]] = axes[given[1]], axes[given[0]]
    return int(axes[kernel.axis]) % len(shape)


def _arguments(kernel: "Kernel", inputs: tuple[Shape, ...], channels: int) -> str:
    """Returns an op's arguments for other inputs and so many channels: some tell numbers of channels."""
    if kernel.op in ("layer_norm", "rms_norm"):
        given = json.loads(kernel.arguments)
        given[1] = [*given[1][:-1], channels]
        return json.dumps(given)
    if kernel.op in PADS:
        given = json.loads(kernel.arguments)
        front = 2 * (len(kernel.output) - 1 - kernel.axis)  # pads are pairs, that of the last axis first
        if before := sum(given[1][front : front + 2]):
            added = channels - inputs[0][kernel.axis]
            first = round(added * given[1][front] / before)
            given[1][front : front + 2] = [first, added - first]
        return json.dumps(given)
    return kernel.arguments
