"""Pooling and resampling: ops on the spatial axes of every channel separately."""

import math
from typing import Any

import numpy as np
import torch

from penjing.graph.channels.rules.elementwise import broadcast
from penjing.graph.channels.rules.table import Axes, Axis, Labelling, Value, pinned, rule

aten = torch.ops.aten

_POOLS = {
    1: (
        aten.max_pool1d.default,
        aten.avg_pool1d.default,
        aten.adaptive_avg_pool1d.default,
        aten.upsample_nearest1d.vec,
        aten.upsample_linear1d.vec,
        aten.upsample_nearest1d.default,
        aten.upsample_linear1d.default,
        aten.reflection_pad1d.default,
        aten.replication_pad1d.default,
    ),
    2: (
        aten.max_pool2d.default,
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool2d.default,
        aten.upsample_nearest2d.vec,
        aten.upsample_bilinear2d.vec,
        aten.upsample_bicubic2d.vec,
        aten._upsample_bilinear2d_aa.vec,
        aten._upsample_bicubic2d_aa.vec,
        aten._upsample_nearest_exact2d.vec,
        aten.upsample_nearest2d.default,
        aten.upsample_bilinear2d.default,
        aten.upsample_bicubic2d.default,
        aten.reflection_pad2d.default,
        aten.replication_pad2d.default,
    ),
    3: (
        aten.max_pool3d.default,
        aten.avg_pool3d.default,
        aten.adaptive_avg_pool3d.default,
        aten.upsample_nearest3d.vec,
        aten.upsample_trilinear3d.vec,
    ),
}
_POOLS_WITH_POSITIONS = {
    1: (aten.adaptive_max_pool1d.default, aten.max_pool1d_with_indices.default),
    2: (aten.adaptive_max_pool2d.default, aten.max_pool2d_with_indices.default),
    3: (aten.adaptive_max_pool3d.default, aten.max_pool3d_with_indices.default),
}


def _keep_channels(spatial: int, outputs: int) -> Any:
    def apply(labelling: Labelling, x: Value, *_: Any) -> Any:
        axes: Axes = (*x.axes[:-spatial], *pinned(labelling, x.axes[-spatial:]))
        return axes if outputs == 1 else [axes] * outputs

    return apply


for _spatial, _targets in _POOLS.items():
    rule(*_targets, tiled=True)(_keep_channels(_spatial, 1))
for _spatial, _targets in _POOLS_WITH_POSITIONS.items():
    rule(*_targets, tiled=True)(_keep_channels(_spatial, 2))


def _put_back(spatial: int) -> Any:
    def apply(labelling: Labelling, x: Value, positions: Value, *_: Any) -> Axes:
        """Puts each channel's values back to the positions of its maxima; positions don't depend on other channels."""
        pinned(labelling, (*x.axes[-spatial:], *positions.axes[-spatial:]))
        leading = [Value(value.axes[:-spatial], value.shape[:-spatial]) for value in (x, positions)]
        return (*broadcast(labelling, *leading), *(None,) * spatial)

    return apply


rule(aten.max_unpool2d.default, tiled=True)(_put_back(2))  # one spatial axis is passed as two, the second of size one
rule(aten.max_unpool3d.default, tiled=True)(_put_back(3))


@rule(aten.grid_sampler.default, aten.grid_sampler_2d.default, aten.grid_sampler_3d.default)
def grid_sampler(labelling: Labelling, x: Value, grid: Value, *_: Any) -> Axes:
    """Samples every channel at the same positions; pins the coordinates."""
    pinned(labelling, (*x.axes[2:], grid.axes[-1]))
    return (x.axes[0], x.axes[1], *grid.axes[1:-1])


@rule(aten.im2col.default)
def im2col(labelling: Labelling, x: Value, kernel: list[int], *_: Any) -> Axes:
    """Turns each channel into as many as the window has places."""
    labels = x.axes[-3]
    pinned(labelling, x.axes[-2:])
    places = math.prod(kernel)
    return (*x.axes[:-3], np.repeat(labels, places) if labels is not None else None, None)


@rule(aten.col2im.default)
def col2im(labelling: Labelling, x: Value, size: Any, kernel: list[int], *_: Any) -> Axes:
    """Reverses `im2col`: merges as many channels as the window has places into one."""
    pinned(labelling, x.axes[-1:])
    return (*x.axes[:-2], _joined(labelling, x.axes[-2], math.prod(kernel)), None, None)


@rule(aten.pixel_shuffle.default)
def pixel_shuffle(labelling: Labelling, x: Value, factor: int) -> Axes:
    """Makes each output channel of factor² neighbouring channels."""
    pinned(labelling, x.axes[-2:])
    return (*x.axes[:-3], _joined(labelling, x.axes[-3], factor**2), None, None)


@rule(aten.pixel_unshuffle.default)
def pixel_unshuffle(labelling: Labelling, x: Value, factor: int) -> Axes:
    """Reverses `pixel_shuffle`: turns each channel into factor² channels."""
    labels = x.axes[-3]
    pinned(labelling, x.axes[-2:])
    return (*x.axes[:-3], np.repeat(labels, factor**2) if labels is not None else None, None, None)


@rule(aten.channel_shuffle.default)
def channel_shuffle(labelling: Labelling, x: Value, groups: int) -> Axes:
    """Interleaves groups; ties the same index of each group, so that the number of groups stays."""
    if x.axes[1] is None:
        return x.axes
    table = x.axes[1].reshape(groups, -1)
    labelling.tie(np.broadcast_to(table[:1], table.shape).ravel(), table.ravel())
    return (x.axes[0], np.repeat(table[0], groups), *x.axes[2:])


@rule(aten.unfold.default)
def unfold(labelling: Labelling, x: Value, axis: int, size: int, step: int) -> Axes:
    """Cuts an axis into windows, and pins it."""
    labelling.pin(x.axes[axis])
    axis %= len(x.axes)
    return (*x.axes[:axis], None, *x.axes[axis + 1 :], None)


def _joined(labelling: Labelling, labels: Axis, count: int) -> Axis:
    """Ties each run of `count` neighbours and returns one label for each run."""
    if labels is None:
        return None
    table = labels.reshape(-1, count)
    labelling.tie(np.repeat(table[:, 0], count), labels)
    return table[:, 0]
