"""Batches are cut where that changes nothing."""

import pytest
import torch
from torch import Tensor, nn

from penjing.evidence import pieces as pieces_module
from penjing.evidence.observation import observe
from penjing.evidence.pieces import pieces
from penjing.evidence.statistics import Extremes, MovingExtremes
from penjing.graph import capture


class Coupled(nn.Module):
    """What it answers for a sample depends on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y - y.mean(0, keepdim=True)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(pieces_module, "MOST_BYTES", 3 * 8 * 16 * 4)  # three samples of eight channels, 4 × 4


def _images(count: int) -> Tensor:
    return torch.randn(count, 4, 4, 4, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 10, 31])
def test_pieces_are_the_batch_in_order_none_too_long_and_none_of_one_sample(count):
    graph = capture(nn.Conv2d(4, 8, 1), _images(2))
    cut = [tensor for (tensor,) in pieces(graph, [[_images(count)]])]
    assert torch.equal(torch.cat(cut), _images(count))
    assert max(map(len, cut)) <= 3 and (min(map(len, cut)) > 1 or count == 1)


def test_batches_stay_whole_where_samples_depend_on_one_another_and_where_it_is_asked_for():
    independent, coupled = (capture(net.eval(), _images(2)) for net in (nn.Conv2d(4, 8, 1), Coupled()))
    assert [len(tensor) for (tensor,) in pieces(coupled, [[_images(10)]])] == [10]
    assert [len(tensor) for (tensor,) in pieces(independent, [[_images(10)]], whole=True)] == [10]


@pytest.mark.parametrize("statistics", [Extremes, MovingExtremes])
def test_ranges_are_those_of_whole_batches(statistics):
    graph, batches = capture(nn.Conv2d(4, 8, 1), _images(2)), [_images(9), 3 * _images(7)]
    node = next(node for node in graph.program.graph.nodes if node.target is torch.ops.aten.conv2d.default)
    found, expected = statistics(), statistics()
    observe(graph, batches, {node: found})
    with torch.no_grad():
        for batch in batches:
            expected.update(graph(batch))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-5)
