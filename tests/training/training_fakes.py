"""A tiny network and tiny data that tests of training share."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from penjing.data import Data
from penjing.tasks import Classification, Unlabelled


class Net(nn.Module):
    """A convolution, batch norm, dropout and a linear layer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.bn = nn.BatchNorm2d(8)
            self.drop = nn.Dropout(0.2)
            self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(torch.relu(self.bn(self.conv(x))).mean((2, 3))))


class Batches:
    """Images whose brightest quadrant is the class; shuffled and flipped by (seed, epoch)."""

    def __init__(self, count: int = 10, size: int = 16, labelled: bool = True) -> None:
        generator = torch.Generator().manual_seed(7)
        self.y = torch.randint(4, (count * size,), generator=generator)
        self.x = torch.randn(count * size, 3, 8, 8, generator=generator)
        self.x += 2 * torch.nn.functional.one_hot(self.y, 4)[:, :3, None, None]
        self.count, self.size, self.labelled, self.epoch = count, size, labelled, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(self.epoch))
        for rows in order.split(self.size):
            yield (self.x[rows], self.y[rows]) if self.labelled else (self.x[rows],)


def data(train: object = None, calibration: object = None, labelled: bool = True) -> Data:
    """Data of the given loaders, by default ten labelled batches to train on."""
    train = Batches() if train is None and calibration is None else train
    task = Classification() if labelled else Unlabelled()
    return Data(train=train, calibration=calibration, validation=None, task=task)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules' states are equal to the last bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
