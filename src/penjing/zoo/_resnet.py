"""The residual networks for CIFAR of He et al. 2015 ("Deep residual learning", section 4.2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.zoo._init import initialise
from penjing.zoo._registry import networks


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, which subsamples and adds zero channels where shapes differ (option A)."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.planes = planes
        self.subsample = stride != 1 or in_planes != planes

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, planes, H / stride, W / stride) for x (N, in_planes, H, W)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.subsample:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4))
        return F.relu(out + x)


class ResNet(nn.Module):
    """A stem, three stages of `blocks` blocks with 16, 32 and 64 channels, and a classifier: 6 * blocks + 2 layers."""

    def __init__(self, blocks: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1)
        self.layer2 = _stage(16, 32, blocks, 2)
        self.layer3 = _stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, num_classes) for x (N, in_channels, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _stage(in_planes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_planes, planes, stride)
    return nn.Sequential(first, *(BasicBlock(planes, planes, 1) for _ in range(blocks - 1)))


@networks.register(source="He et al. 2015", shape=(3, 32, 32))
def resnet20(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-20 for CIFAR: 0.27 M parameters, 41 M multiply-accumulates at 32 x 32."""
    return ResNet(3, num_classes, in_channels)


@networks.register(source="He et al. 2015", shape=(3, 32, 32))
def resnet32(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-32 for CIFAR: 0.46 M parameters, 69 M multiply-accumulates at 32 x 32."""
    return ResNet(5, num_classes, in_channels)


@networks.register(source="He et al. 2015", shape=(3, 32, 32))
def resnet44(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-44 for CIFAR: 0.66 M parameters, 97 M multiply-accumulates at 32 x 32."""
    return ResNet(7, num_classes, in_channels)


@networks.register(source="He et al. 2015", shape=(3, 32, 32))
def resnet56(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-56 for CIFAR: 0.85 M parameters, 125 M multiply-accumulates at 32 x 32."""
    return ResNet(9, num_classes, in_channels)
