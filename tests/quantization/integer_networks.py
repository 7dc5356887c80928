"""Ops for the integer reference, side by side in one network, so that it is lowered once; inputs are (N, 8, 8, 8)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Function = Callable[[Tensor, Tensor], Tensor]

# Ops that move or compare values: the runtime's are exact.
MOVING: dict[str, Function] = {
    "max_pool2d": lambda a, b: F.max_pool2d(a, 3, 2, padding=1),
    "max_pool2d_ceil": lambda a, b: F.max_pool2d(a, 3, 2, ceil_mode=True),
    "reshape": lambda a, b: a.reshape(-1, 4, 16, 8),
    "transpose": lambda a, b: a.transpose(2, 3),
    "permute": lambda a, b: a.permute(0, 2, 3, 1),
    "slice": lambda a, b: a[:, :, ::2, 1:],
    "pad": lambda a, b: F.pad(a, (1, 2, 0, 1)),
    "chunk": lambda a, b: a.chunk(2, 1)[1],
    "upsample": lambda a, b: F.interpolate(a, scale_factor=2),
}
# Ops for which the runtime keeps a table of the same float32 arithmetic: exact, too.
LOOKED_UP: dict[str, Function] = {
    "cat": lambda a, b: torch.cat([a[:, :4], b[:, :4]], 1),
    "leaky_relu": lambda a, b: F.leaky_relu(a, 0.1),
}
# Ops whose sums the runtime multiplies with a float32 factor: within one step, and only where it is a near tie.
RESCALED: dict[str, Function] = {
    "add": lambda a, b: F.relu(a + b),
    "mul": lambda a, b: a * b,
    "adaptive_avg_pool2d": lambda a, b: F.adaptive_avg_pool2d(a, 2),
    "mean": lambda a, b: a.mean((2, 3), keepdim=True),
}
# The same of layers.
LAYERS: dict[str, nn.Module] = {
    "conv1d": nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 16, 5, padding=2)),
    "conv2d": nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()),
    "conv2d_dilated": nn.Sequential(nn.Conv2d(8, 16, 3, 2, padding=2, dilation=2, bias=False), nn.ReLU6()),
    "conv2d_groups": nn.Conv2d(8, 16, 3, groups=4),
    "conv2d_depthwise": nn.Sequential(nn.Conv2d(8, 8, (5, 3), padding="same", groups=8), nn.Hardtanh(-0.2, 0.3)),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 4)),
}
# Ops that the runtime computes on real numbers, approximates, or that are lowered as others: within one step.
APPROXIMATED: dict[str, Function] = {
    "avg_pool2d": lambda a, b: F.avg_pool2d(a, 3, 2, padding=1),
    "sigmoid": lambda a, b: torch.sigmoid(a),
    "hardsigmoid": lambda a, b: F.hardsigmoid(a),
}


class SideBySide(nn.Module):
    """All of them on the results of two convolutions; functions that are rounded are read by a third one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.layers = nn.ModuleDict(LAYERS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a, b = self.first(x), self.second(x)
        moved = {name: function(a, b) for name, function in MOVING.items()}
        rounded = LOOKED_UP | RESCALED | APPROXIMATED
        read = {name: self.last(function(a, b)) for name, function in rounded.items()}
        return moved | read | {name: layer(x) for name, layer in self.layers.items()}
