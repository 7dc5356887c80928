"""A file and its simulation round alike, but for few values near the middle of two steps; depth makes many of these few.

So in a deep network, as a U-Net, the two differ by about as much as either differs from floating point, and both are equally far
from that.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import penjing as pj
from penjing import targets


class UNet(nn.Module):
    """Two scales: max pool, a way up, concatenation."""

    def __init__(self, way_up: nn.Module) -> None:
        super().__init__()
        self.down, self.middle = self._block(3, 8), self._block(8, 16)
        self.up, self.back, self.head = way_up, self._block(16, 8), nn.Conv2d(8, 2, 1)

    @staticmethod
    def _block(before: int, after: int) -> nn.Module:
        first, second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down(x)
        coarse = self.up(self.middle(F.max_pool2d(fine, 2)))
        return self.head(self.back(torch.cat([coarse, fine], 1)))


WAYS_UP = {
    "transposed convolution": lambda: nn.ConvTranspose2d(16, 8, 2, 2),
    "nearest": lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(16, 8, 1)),
    "bilinear": lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(16, 8, 1)),
}


def _decibels(wanted: Tensor, got: Tensor) -> float:
    varying = wanted - wanted.mean((0, 2, 3), keepdim=True)
    return 20 * math.log10(float(varying.norm() / (got - wanted).norm()))


@pytest.mark.parametrize("way_up", WAYS_UP)
def test_the_file_of_a_unet_is_as_near_to_floating_point_as_its_simulation(way_up, tmp_path: Path):
    torch.manual_seed(0)
    graph = pj.capture(UNet(WAYS_UP[way_up]()).eval(), torch.randn(2, 3, 16, 16))
    small = pj.quantize(graph, [torch.randn(16, 3, 16, 16) for _ in range(2)])
    x = torch.randn(8, 3, 16, 16)
    restored = [node for node in small.program.graph.nodes if "dequantize_per_tensor" in str(node.target)]
    first = restored[1]  # the first is the input's
    tapped = small.with_outputs([first.name])
    with torch.no_grad():
        wanted, (simulated, inner) = graph(x), tapped(x)
    given = targets.run(pj.lower(small, path=tmp_path / "small.onnx"), x)
    _, ran = targets.run(pj.lower(tapped, path=tmp_path / "tapped.onnx"), x)
    assert abs(_decibels(wanted, given) - _decibels(wanted, simulated)) < 1
    steps = ((ran[first.name] - inner[first.name]) / first.args[1]).abs().round()
    assert steps.max() <= 1 and (steps > 0).float().mean() < 0.005
