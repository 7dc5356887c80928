"""Two small networks with the values that their channels' scores are computed from."""

import pytest
import torch
from torch import Tensor, nn

from penjing import zoo
from penjing.data import Data
from penjing.graph import Graph, capture
from penjing.tasks import Classification


class Chain(nn.Module):
    """Two convolutions with batch norms, and a linear layer; 6 and 8 removable channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)
        for norm in (self.bn1, self.bn2):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.head(torch.relu(self.bn2(self.conv2(x))).mean((2, 3)))


class Stream(nn.Module):
    """A residual stream: two convolutions make the same 6 channels, and no norm stands behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head((x + self.second(torch.relu(x))).mean((2, 3)))


@pytest.fixture(scope="session")
def chain_model() -> Chain:
    torch.manual_seed(1)
    return Chain().eval()


@pytest.fixture(scope="session")
def chain(chain_model: Chain) -> Graph:
    return capture(chain_model, torch.randn(2, 3, 8, 8))


@pytest.fixture(scope="session")
def stream() -> Graph:
    torch.manual_seed(2)
    return capture(Stream(), torch.randn(2, 3, 8, 8))


@pytest.fixture(scope="session")
def data() -> Data:
    generator = torch.Generator().manual_seed(3)
    batches = [
        (torch.randn(4, 3, 8, 8, generator=generator), torch.randint(3, (4,), generator=generator)) for _ in range(3)
    ]
    return Data(batches, batches, None, Classification(3))


class Residual(nn.Module):
    """Four residual branches of unlike widths, the second smallest in its weights' mean, and a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 6))
            for width in (2, 40, 8, 8)
        )
        for block, scale in zip(self.blocks, (0.4, 0.1, 0.3, 0.2), strict=True):
            for layer in (block[0], block[3]):
                nn.init.constant_(layer.weight, scale)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x), x


@pytest.fixture(scope="session")
def residual() -> Graph:
    torch.manual_seed(4)
    return capture(Residual(), torch.randn(2, 5))


@pytest.fixture(scope="session")
def residual_data() -> Data:
    generator = torch.Generator().manual_seed(5)
    batches = [(torch.randn(4, 5, generator=generator), torch.randint(3, (4,), generator=generator)) for _ in range(2)]
    return Data(batches, batches, None, Classification(3))


@pytest.fixture(scope="session")
def resnet() -> Graph:
    torch.manual_seed(6)
    model = zoo.resnet20()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: no two channels alike
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return capture(model.eval(), torch.randn(2, 3, 16, 16))


@pytest.fixture(scope="session")
def small_images() -> Data:
    generator = torch.Generator().manual_seed(7)
    batches = [
        (torch.randn(4, 3, 16, 16, generator=generator), torch.randint(10, (4,), generator=generator)) for _ in range(2)
    ]
    return Data(batches, batches, None, Classification(10))
