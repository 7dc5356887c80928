import pytest
import torch
from torch import nn

from penjing.graph import capture
from penjing.graph.straight_through import ops


class Model(nn.Module):
    """A quantised weight, a tied one, one that something else reads too, and one whose scale is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.read, self.computed = (nn.Parameter(torch.randn(6, 6)) for _ in range(3))
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.full((6,), 0.25))
        self.register_buffer("zero", torch.zeros(6, dtype=torch.int64))

    def quantize(self, weight, scale):
        grid = (scale, self.zero, 0, -7, 7, torch.int8)
        return ops.dequantize_per_channel(ops.quantize_per_channel(weight, *grid), *grid)

    def forward(self, x):
        x = x @ self.quantize(self.plain, self.scale)
        x = x @ self.quantize(self.first.weight, self.scale)
        x = x @ self.quantize(self.read, self.scale) + self.read
        return x @ self.quantize(self.computed, self.scale * 2)


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return capture(Model(), torch.randn(6, 6))


def test_a_rounded_graph_computes_the_same_and_its_weights_are_multiples_of_the_scale(graph):
    before = {name: tensor.clone() for name, tensor in graph.tensors().items()}
    rounded = graph.rounded()
    x = torch.randn(6, 6)
    assert torch.equal(rounded(x), graph(x))
    for name in ("plain", "first.weight"):
        assert torch.equal(rounded.tensor(name), (before[name] * 4).round().clamp(-7, 7) / 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in graph.tensors().items())


def test_weights_of_which_more_is_read_than_their_integers_stay(graph):
    rounded = graph.rounded()
    for name in ("read", "computed"):
        assert torch.equal(rounded.tensor(name), graph.tensor(name))


def test_a_graph_in_training_is_rounded_too_and_trains_on(graph):
    rounded = graph.train().rounded()
    assert rounded.training and torch.equal(
        rounded.tensor("plain"), graph.tensor("plain").mul(4).round().clamp(-7, 7) / 4
    )
    rounded(torch.randn(6, 6)).sum().backward()
    assert rounded.tensor("plain").grad.abs().sum() > 0


def test_masked_weights_become_positive_zeros_also_where_they_were_not_finite(graph):
    weight = graph.tensor("plain")
    with torch.no_grad():
        weight.fill_(-1.0)[0, 0] = float("nan")
    graph.masks["plain"] = torch.zeros(6, 6, dtype=torch.bool)
    graph.apply_masks()
    assert not weight.detach().view(torch.int32).any()
