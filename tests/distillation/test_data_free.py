"""Inputs that a network's batch norms know the statistics of."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.distillation import data_free
from penjing.distillation.teachers._data_free import Norm, statistics_apart, variation
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.loaders import first


class Net(nn.Module):
    """Two convolutions with norms, and a classifier; the norms hold statistics that noise doesn't have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm0, self.conv, self.norm1 = nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)
        self.head.weight.data *= 30  # a network that is sure of its classes, as trained ones are
        self.train()
        for _ in range(30):
            self(3 + 0.5 * torch.randn(16, 3, 6, 6))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm1(self.conv(self.norm0(x)))).mean((2, 3)))


def test_the_distance_of_statistics_follows_the_formula() -> None:
    values, mean, variance = torch.randn(5, 3, 4, 2), torch.randn(3), torch.rand(3)
    own = values.numpy().transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)
    expected = np.linalg.norm(own.mean(1) - mean.numpy()) + np.linalg.norm(own.var(1) - variance.numpy())
    found = statistics_apart([Norm(values, mean, variance), Norm(values, mean, variance)])
    assert found.item() == pytest.approx(2 * expected, rel=1e-5)
    vectors = torch.randn(5, 3)
    alike = Norm(vectors, vectors.mean(0), vectors.var(0, correction=0))
    assert statistics_apart([alike]).item() == pytest.approx(0, abs=1e-5)


def test_the_variation_follows_the_formula() -> None:
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    sums = dict.fromkeys(((0, 1), (1, 0), (1, 1), (1, -1)), 0.0)
    for down, right in sums:
        for row in range(4):
            for column in range(5):
                if row + down < 4 and 0 <= column + right < 5:
                    apart = images[:, :, row, column] - images[:, :, row + down, column + right]
                    sums[down, right] += (apart**2).sum()
    assert variation(torch.from_numpy(images)).item() == pytest.approx(sum(total**0.5 for total in sums.values()))


@pytest.mark.parametrize("captured", [True, False], ids=["graph", "module"])
def test_made_inputs_have_the_statistics_that_the_norms_know_and_the_classes_that_were_wished(captured: bool) -> None:
    net = Net()
    before = copy.deepcopy(net.state_dict())
    teacher = capture(net, torch.randn(2, 3, 6, 6)) if captured else net
    said: list[str] = []
    data = data_free(
        teacher, None if captured else (3, 6, 6), samples=24, batch_size=16, steps=150, lr=0.1, log=said.append
    )
    batches = list(data.train)
    assert [x.shape for (x,) in batches] == [(16, 3, 6, 6), (8, 3, 6, 6)] and len(said) == 2
    made = batches[0][0]
    assert made.mean((0, 2, 3)) == pytest.approx(net.norm0.running_mean, abs=0.3)
    assert made.var((0, 2, 3)) == pytest.approx(net.norm0.running_var, abs=0.3)
    assert sorted(net(made).argmax(1).bincount(minlength=4).tolist()) == [4, 4, 4, 4]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not made.requires_grad and not net.norm0._forward_pre_hooks
    assert not data.task.labelled and torch.equal(first(data.calibration)[0], made) and data.validation is None


def test_the_same_seed_makes_the_same_inputs() -> None:
    one, same, other = (
        first(data_free(Net(), (3, 6, 6), samples=4, steps=3, seed=seed).train)[0] for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_vectors_and_outputs_that_are_values_are_made_by_statistics_alone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 1)).eval()
    net[0].running_mean.fill_(4.0)
    x = first(data_free(net, (5,), samples=32, steps=150).train)[0]
    assert x.mean(0) == pytest.approx(torch.full((5,), 4.0), abs=0.3)


@pytest.mark.parametrize(
    ("network", "choices", "words"),
    [
        (nn.Linear(5, 2), {"shape": (5,)}, "no batch norms"),
        (nn.BatchNorm1d(5, track_running_stats=False), {"shape": (5,)}, "no batch norms"),
        (capture(nn.Linear(5, 2), torch.randn(2, 5)), {}, "no batch norms"),
        (nn.BatchNorm1d(5), {}, r"Name the shape.*shape="),
        (nn.BatchNorm1d(5), {"shape": (5,), "samples": 0}, "samples=0"),
        (nn.BatchNorm1d(5), {"shape": (5,), "lr": 0}, "lr=0"),
        (capture(nn.Embedding(5, 2), torch.zeros(2, 3, dtype=torch.long)), {}, "single floating-point input"),
    ],
)
def test_networks_that_no_inputs_can_be_made_for_are_told(network: nn.Module, choices: dict, words: str) -> None:
    with pytest.raises(PenjingError, match=words):
        data_free(network, steps=1, **choices)
