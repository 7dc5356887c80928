"""Pooling and resampling: every channel by itself, spatial axes behind it."""

from typing import Any

import torch

from penjing.graph.rules.table import Axes, Labelling, Value, rule

aten = torch.ops.aten

_POOLS = {
    1: (aten.max_pool1d.default, aten.avg_pool1d.default, aten.adaptive_avg_pool1d.default),
    2: (
        aten.max_pool2d.default,
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool2d.default,
        aten.upsample_nearest2d.vec,
        aten.upsample_bilinear2d.vec,
        aten.upsample_bicubic2d.vec,
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
    ),
}
_POOLS_WITH_POSITIONS = {1: (aten.adaptive_max_pool1d.default,), 2: (aten.adaptive_max_pool2d.default,)}


def _keep_channels(spatial: int, outputs: int) -> Any:
    def apply(labelling: Labelling, x: Value, *_: Any) -> Any:
        axes: Axes = (*x.axes[:-spatial], *[None] * spatial)
        return axes if outputs == 1 else [axes] * outputs

    return apply


for _spatial, _targets in _POOLS.items():
    rule(*_targets)(_keep_channels(_spatial, 1))
for _spatial, _targets in _POOLS_WITH_POSITIONS.items():
    rule(*_targets)(_keep_channels(_spatial, 2))
