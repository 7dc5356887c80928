"""ShuffleNetV2 at width 1.0 (Ma et al. 2018, "Practical guidelines for efficient CNN architecture design")."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.zoo._init import initialise
from penjing.zoo._registry import networks

_STAGES = ((116, 4), (232, 8), (464, 4))  # (channels, blocks), each of which halves the image


class ShuffleBlock(nn.Module):
    """One half of the channels is filtered, the other is kept (at stride 2 filtered as well); then both are shuffled."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.stride = stride
        self.branch1 = (
            nn.Sequential(*_depthwise(in_channels, stride), *_pointwise(in_channels, half)) if stride > 1 else None
        )
        self.branch2 = nn.Sequential(
            *_pointwise(in_channels if stride > 1 else half, half), *_depthwise(half, stride), *_pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, out_channels, H / stride, W / stride) for x (N, in_channels, H, W)."""
        if self.branch1 is None:
            passed, filtered = x.chunk(2, 1)
        else:
            passed, filtered = self.branch1(x), x
        return _shuffle(torch.cat([passed, self.branch2(filtered)], 1))


class ShuffleNetV2(nn.Module):
    """A stem, three stages of shuffled blocks, and a wide 1 x 1 convolution before the classifier."""

    def __init__(self, num_classes: int, in_channels: int, small: bool) -> None:
        super().__init__()
        stem = nn.Conv2d(in_channels, 24, 3, 1 if small else 2, padding=1, bias=False)
        self.conv1 = nn.Sequential(stem, nn.BatchNorm2d(24), nn.ReLU())
        self.pool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        stages, channels = [], 24
        for out_channels, blocks in _STAGES:
            first = ShuffleBlock(channels, out_channels, 2)
            stages.append(
                nn.Sequential(first, *(ShuffleBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))
            )
            channels = out_channels
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = nn.Sequential(*_pointwise(channels, 1024))
        self.fc = nn.Linear(1024, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, num_classes) for x (N, in_channels, H, W)."""
        x = self.pool(self.conv1(x))
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _pointwise(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]


def _shuffle(x: Tensor) -> Tensor:
    """Returns the channels in the order 0, C/2, 1, C/2 + 1, …, so that both halves meet in the next block."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


@networks.register(source="Ma et al. 2018", shape=(3, 224, 224))
def shufflenet_v2(num_classes: int = 1000, in_channels: int = 3, size: int = 224) -> nn.Module:
    """ShuffleNetV2 1.0: 2.28 M parameters, 0.15 G multiply-accumulates at 224 x 224; up to size 64 fewer strides."""
    return ShuffleNetV2(num_classes, in_channels, small=size <= 64)


@networks.register(source="Ma et al. 2018", shape=(3, 32, 32))
def shufflenet_v2_cifar(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ShuffleNetV2 1.0 for 32 x 32: 1.26 M parameters; the same layers with fewer strides."""
    return shufflenet_v2(num_classes, in_channels, size=32)
