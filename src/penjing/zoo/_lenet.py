"""The two networks on which pruning was first shown (LeCun et al. 1998), in the forms that the literature prunes."""

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.zoo._registry import networks


class LeNet300(nn.Module):
    """Two hidden layers of 300 and 100 units on the flattened image."""

    def __init__(self, num_classes: int, in_channels: int, size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_channels * size * size, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, num_classes) for x (N, in_channels, size, size)."""
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


class LeNet5(nn.Module):
    """Caffe's form: wider than the original, max pooling, a ReLU only between the fully connected layers."""

    def __init__(self, num_classes: int, in_channels: int, size: int) -> None:
        super().__init__()
        side = ((size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * side * side, 500)
        self.fc2 = nn.Linear(500, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, num_classes) for x (N, in_channels, size, size)."""
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


@networks.register(source="LeCun et al. 1998; Han et al. 2015", shape=(1, 28, 28))
def lenet300(num_classes: int = 10, in_channels: int = 1, size: int = 28) -> nn.Module:
    """LeNet-300-100: 266,610 parameters on 28 x 28 grey images."""
    return LeNet300(num_classes, in_channels, size)


@networks.register(source="LeCun et al. 1998; Caffe's lenet.prototxt", shape=(1, 28, 28))
def lenet5(num_classes: int = 10, in_channels: int = 1, size: int = 28) -> nn.Module:
    """LeNet-5 as Caffe has it (20 and 50 filters, 500 units): 431,080 parameters on 28 x 28 grey images."""
    return LeNet5(num_classes, in_channels, size)


def _initialise(model: nn.Module) -> None:
    # Without batch norm the variance of the forward pass must be right from the start, so Xavier's, as in Caffe's file.
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
