"""Integer forms of ops that move, select, repeat and join values: codes stay codes. All exact."""

import operator
from typing import Any

import torch
from torch import Tensor, fx

from integer_oracle._lookup import regridded
from integer_oracle._table import Call, Kernel, integer

aten = torch.ops.aten


@integer(
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.transpose.int,
    aten.t.default,
    aten.permute.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.expand.default,
    aten.repeat.default,
    aten.flip.default,
    aten.roll.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.detach.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.narrow.default,
    aten.chunk.default,
    aten.split.Tensor,
    aten.split.sizes,
    aten.split_with_sizes.default,
    aten.unbind.int,
    aten.pixel_shuffle.default,
    aten.channel_shuffle.default,
    operator.getitem,
)
def move(call: Call, x: fx.Node, *_: Any) -> Kernel:
    """The op itself, on integers; sizes may be computed while it runs."""
    node = call.node
    operands = tuple(node.all_input_nodes)

    def run(*values: Any) -> Any:
        known = dict(zip(operands, values, strict=True))
        args = fx.map_arg(node.args, known.__getitem__)
        return node.target(*args, **fx.map_arg(node.kwargs, known.__getitem__))  # type: ignore[operator]

    return Kernel(run, operands, call.codes(x))


@integer(aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default)
def dropout(call: Call, x: fx.Node, *_: Any) -> Kernel:
    """Nothing happens in evaluation mode."""
    return Kernel(lambda x: x, (x,), call.codes(x))


@integer(aten.constant_pad_nd.default)
def constant_pad(call: Call, x: fx.Node, pads: Any, value: Any) -> Kernel:
    """Real zeros are the zero point; another constant must be a code, too."""
    codes = call.codes(x)
    filling = int(codes.rounded(torch.tensor(float(value or 0)).numpy()))
    if abs(float(codes.restored(torch.tensor(filling))) - float(value or 0)) > 1e-6 * float(codes.scale):
        raise call.error(f"pads with {value}, which isn't on the grid of its input")
    return Kernel(lambda x: torch.nn.functional.pad(x, list(pads), value=filling), (x,), codes)


@integer(aten.pad.default)
def pad(call: Call, x: fx.Node, pads: Any, mode: str, value: Any) -> Kernel:
    """Constants, or copies of what is at the border."""
    if mode == "constant":
        return constant_pad(call, x, pads, value)
    raise call.error(f"pads in mode '{mode}', for which there is no integer form")


@integer(aten.upsample_nearest2d.vec)
def upsample_nearest(call: Call, x: fx.Node, out: Any, factors: Any) -> Kernel:
    """Each entry as often as the image grows, which must be a whole number of times."""
    codes, sizes = call.codes(x), x.meta["val"].shape[2:]
    wanted = out if out is not None else [int(size * factor) for size, factor in zip(sizes, factors, strict=True)]
    if any(not isinstance(size, int) or new % size for size, new in zip(sizes, wanted, strict=True)):
        raise call.error("enlarges images to no whole multiple of their size")
    times = [new // size for size, new in zip(sizes, wanted, strict=True)]

    def run(x: Tensor) -> Tensor:
        return x.repeat_interleave(times[0], 2).repeat_interleave(times[1], 3)

    return Kernel(run, (x,), codes)


@integer(aten.cat.default, aten.concat.default, aten.concatenate.default, aten.stack.default)
def join(call: Call, parts: list[fx.Node], axis: int) -> Kernel:
    """Each part is brought to the grid of the result first, by a table, where it isn't there already."""
    to_grid = [regridded(call.codes(part), call.grid) for part in parts]
    op = call.node.target

    def run(*values: Tensor) -> Tensor:
        joined: Tensor = op([shift(value) for shift, value in zip(to_grid, values, strict=True)], axis)  # type: ignore[operator]
        return joined

    return Kernel(run, tuple(parts), call.grid)
