"""VGG-16 for CIFAR (Simonyan and Zisserman 2014), with batch norm and one linear layer as in Li et al. 2016."""

from torch import Tensor, nn

from penjing.zoo._init import initialise
from penjing.zoo._registry import networks

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # (channels, convolutions), each followed by max pooling


class VGG(nn.Module):
    """Thirteen 3 x 3 convolutions with batch norm, and a classifier that reads the 512 values left of a 32 x 32 input."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, convolutions in _STAGES:
            for _ in range(convolutions):
                layers += [
                    nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                ]
                in_channels = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, num_classes) for x (N, in_channels, 32, 32)."""
        return self.classifier(self.features(x).flatten(1))


@networks.register(source="Simonyan and Zisserman 2014; Li et al. 2016", shape=(3, 32, 32))
def vgg16_cifar(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """VGG-16 with batch norm for CIFAR: 14.72 M parameters, 313 M multiply-accumulates at 32 x 32."""
    return VGG(num_classes, in_channels)
