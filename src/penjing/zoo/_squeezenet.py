"""SqueezeNet 1.1 (Iandola et al. 2016, and the authors' later form with 2.4 times less computation)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.zoo._registry import networks


class Fire(nn.Module):
    """Squeeze to few channels (1 x 1), then expand side by side with 1 x 1 and 3 x 3 filters."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, 2 * expand, H, W) for x (N, in_channels, H, W)."""
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """A stem, eight fire modules with three max poolings between, and a convolution as the classifier."""

    def __init__(self, num_classes: int, in_channels: int, small: bool) -> None:
        super().__init__()
        stem = nn.Conv2d(in_channels, 64, 3, padding=1) if small else nn.Conv2d(in_channels, 64, 3, stride=2)
        self.features = nn.Sequential(
            stem,
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Conv2d(512, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                assert module.bias is not None
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # no batch norm: keep the forward variance
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, num_classes) for x (N, in_channels, H, W)."""
        x = F.relu(self.classifier(self.dropout(self.features(x))))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


@networks.register(source="Iandola et al. 2016", shape=(3, 224, 224))
def squeezenet(num_classes: int = 1000, in_channels: int = 3, size: int = 224) -> nn.Module:
    """SqueezeNet 1.1: 1.24 M parameters, 0.35 G multiply-accumulates at 224 x 224; up to size 64 fewer strides."""
    return SqueezeNet(num_classes, in_channels, small=size <= 64)


@networks.register(source="Iandola et al. 2016", shape=(3, 32, 32))
def squeezenet_cifar(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """SqueezeNet 1.1 for 32 x 32: 0.73 M parameters; the same layers with fewer strides."""
    return squeezenet(num_classes, in_channels, size=32)
