"""Small networks, one of them quantised by hand: what the placement pass would insert stands in `forward`."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the ops
from torch.nn import functional as F

from penjing.graph import Graph, capture

ops = torch.ops.quantized_decomposed


def pair(x: Tensor, scale: float = 0.02, zero: int = 0) -> Tensor:
    arguments = (scale, zero, 0, 255, torch.uint8)
    return ops.dequantize_per_tensor.default(ops.quantize_per_tensor.default(x, *arguments), *arguments)


def weight_pair(layer: nn.Module) -> Tensor:
    weight = layer.weight
    zeros = torch.zeros(weight.shape[0], dtype=torch.int64)
    arguments = (layer.scales, zeros, 0, -127, 127, torch.int8)
    return ops.dequantize_per_channel.default(ops.quantize_per_channel.default(weight, *arguments), *arguments)


class Conv(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("scales", self.weight.detach().flatten(1).abs().amax(1) / 127)

    def forward(self, x):
        return F.conv2d(x, weight_pair(self), self.bias, self.stride, self.padding)


class Linear(nn.Linear):
    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("scales", self.weight.detach().abs().amax(1) / 127)

    def forward(self, x):
        return F.linear(x, weight_pair(self), self.bias)


class Quantised(nn.Module):
    """Convolutions, a strided slice and a channel pad as a shortcut, a split, a global mean and a linear."""

    def __init__(self):
        super().__init__()
        self.stem = Conv(3, 16, 3, padding=1)
        self.body = Conv(16, 32, 3, stride=2, padding=1)
        self.side = Conv(16, 16, 1)
        self.head = Linear(32, 5)

    def forward(self, image):
        x = pair(F.relu(self.stem(pair(image, 0.02, 128))))
        shortcut = pair(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8)))
        x = pair(F.relu(pair(self.body(x), 0.02, 128) + shortcut))
        left, right = x.chunk(2, 1)
        right = pair(F.hardtanh(self.side(right), 0, 4), 4 / 255)
        x = pair(torch.cat([left, right], 1), 0.02)
        x = pair(x.mean([2, 3]), 0.01)
        return self.head(x)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, image):
        x = torch.clamp(self.norm(self.conv(image)), 0, 6.0)
        return {"logits": self.head(x.mean([2, 3])), "features": x}


@pytest.fixture(scope="session", name="pair")
def pair_() -> Callable[..., Tensor]:
    return pair


@pytest.fixture(scope="session")
def quantised() -> Graph:
    torch.manual_seed(0)
    return capture(Quantised(), torch.randn(2, 3, 32, 32))


@pytest.fixture(scope="session")
def plain() -> Graph:
    torch.manual_seed(0)
    model = Plain()
    with torch.no_grad():
        model(torch.randn(16, 3, 12, 12))  # running statistics that differ from the initial ones
    return capture(model, torch.randn(2, 3, 12, 12))


@pytest.fixture(scope="session")
def lowered(quantised, tmp_path_factory):
    from penjing.targets import lower

    return lower(quantised, path=tmp_path_factory.mktemp("lowered") / "model.onnx")
