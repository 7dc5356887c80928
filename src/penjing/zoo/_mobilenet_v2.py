"""MobileNetV2 (Sandler et al. 2018, "Inverted residuals and linear bottlenecks")."""

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.zoo._init import initialise
from penjing.zoo._registry import networks

# (expansion, channels, blocks, stride), table 2 of the paper
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """Widen (1 x 1), filter each channel (3 x 3), narrow (1 x 1, no activation); add the input where shapes allow."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        widen = _convolution(in_channels, hidden, 1) if expansion != 1 else []
        filter_ = _convolution(hidden, hidden, 3, stride, groups=hidden)
        narrow = [nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)]
        self.conv = nn.Sequential(*widen, *filter_, *narrow)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, out_channels, H / stride, W / stride) for x (N, in_channels, H, W)."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Seventeen inverted residuals; `small` keeps images of 32 x 32 at full size up to the third stage."""

    def __init__(self, num_classes: int, in_channels: int, small: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(in_channels, 32, 3, 1 if small else 2)]
        channels = 32
        for stage, (expansion, out_channels, blocks, stride) in enumerate(_STAGES):
            for block in range(blocks):
                step = stride if block == 0 and not (small and stage == 1) else 1
                layers.append(InvertedResidual(channels, out_channels, step, expansion))
                channels = out_channels
        self.features = nn.Sequential(*layers, *_convolution(channels, 1280, 1))
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(1280, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, num_classes) for x (N, in_channels, H, W)."""
        x = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        return self.classifier(self.dropout(x))


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU6()]


@networks.register(source="Sandler et al. 2018", shape=(3, 224, 224))
def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3, size: int = 224) -> nn.Module:
    """MobileNetV2: 3.50 M parameters, 0.30 G multiply-accumulates at 224 x 224; up to size 64 fewer strides."""
    return MobileNetV2(num_classes, in_channels, small=size <= 64)


@networks.register(source="Sandler et al. 2018", shape=(3, 32, 32))
def mobilenet_v2_cifar(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """MobileNetV2 for 32 x 32: 2.24 M parameters; the same layers with fewer strides."""
    return mobilenet_v2(num_classes, in_channels, size=32)
