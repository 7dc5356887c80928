"""Bags of embeddings are captured as embeddings and a reduction: PyTorch's own op is the oracle."""

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.graph import Graph

aten = torch.ops.aten
ROWS = 30


class Bag(nn.Module):
    def __init__(self, mode: str, padding: int | None = None) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(ROWS, 6, mode=mode, padding_idx=padding)

    def forward(self, ids: Tensor) -> Tensor:
        bags: Tensor = self.bag(ids)
        return bags


class Weighted(Bag):
    def forward(self, ids: Tensor, factors: Tensor) -> Tensor:  # type: ignore[override]
        bags: Tensor = self.bag(ids, per_sample_weights=factors)
        return bags


class Free(Bag):
    """Reads bags of unlike sizes, one behind the other."""

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:  # type: ignore[override]
        bags: Tensor = self.bag(ids, offsets)
        return bags


def _ops(graph: Graph) -> set[object]:
    return {node.target for node in graph.program.graph.nodes}


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 3])
def test_bags_give_what_pytorch_gives(mode: str, padding: int | None) -> None:
    torch.manual_seed(0)
    net = Bag(mode, padding).eval()
    graph = pj.capture(net, torch.randint(0, ROWS, (4, 5)))
    assert aten.embedding.default in _ops(graph) and aten.embedding_bag.padding_idx not in _ops(graph)
    ids = torch.randint(0, 5, (50, 5))  # small, so that padding comes up often
    ids[0] = 3  # a bag of padding alone
    assert torch.allclose(graph(ids), net(ids), atol=1e-6)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_in_half_precision_stay_so(mode: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Bag(mode, 3), nn.Linear(6, 2)).bfloat16().eval()
    graph, ids = pj.capture(net, torch.randint(0, ROWS, (4, 5))), torch.randint(0, 5, (20, 5))
    assert graph(ids).dtype is torch.bfloat16 and torch.allclose(graph(ids), net(ids), atol=0.05)


def test_bags_with_a_weight_for_each_entry_stay_one_op() -> None:
    torch.manual_seed(0)
    net, given = Weighted("sum").eval(), (torch.randint(0, ROWS, (4, 5)), torch.rand(4, 5))
    graph = pj.capture(net, given)
    assert aten.embedding_bag.padding_idx in _ops(graph)
    assert torch.allclose(graph(*given), net(*given), atol=1e-6)


def test_bags_of_free_sizes_stay_one_op() -> None:
    torch.manual_seed(0)
    net, given = Free("sum").eval(), (torch.randint(0, ROWS, (12,)), torch.tensor([0, 3, 9]))
    graph = pj.capture(net, given)
    assert aten.embedding_bag.padding_idx in _ops(graph)
    assert torch.equal(graph(*given), net(*given))


def test_gradients_are_those_of_the_bag() -> None:
    torch.manual_seed(0)
    net, ids = Bag("mean", 3).eval(), torch.randint(0, 5, (20, 5))
    graph = pj.capture(net, ids)
    for one in (net, graph):
        one(ids).square().sum().backward()
    gradient = graph.tensor("bag.weight").grad
    assert gradient is not None and net.bag.weight.grad is not None
    assert torch.allclose(gradient, net.bag.weight.grad, atol=1e-5)
