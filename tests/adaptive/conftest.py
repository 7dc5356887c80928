"""A small network with batch norms, trained a little on digits."""

import pytest
import torch
from torch import Tensor, nn

from penjing import data as sources
from penjing.data import Data
from penjing.graph import Graph, capture
from penjing.training import recover


class Small(nn.Module):
    """Three convolutions with norms, two of them in a residual block of their own, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.block = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.last, self.head = nn.Conv2d(8, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(nn.functional.avg_pool2d(x, 2) + self.block(x))
        return self.head(torch.relu(self.last(x)).mean((2, 3)))


@pytest.fixture(scope="session")
def digits() -> Data:
    return sources.digits(size=8)


@pytest.fixture(scope="session")
def trained(digits: Data) -> Graph:
    torch.manual_seed(0)
    graph = capture(Small(), torch.randn(2, 3, 8, 8))
    return recover(graph, digits, epochs=6, lr=0.1, precision="float32", channels_last=False, progress=False)
