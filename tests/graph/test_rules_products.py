import copy

import pytest
import torch
from oracle import check
from torch import nn

import penjing as pj
from penjing.graph import capture
from penjing.graph.capture.verify import close


class Bags(nn.Module):
    """Embeddings of bags of words, which a small classifier reads."""

    def __init__(self, **options):
        super().__init__()
        self.bag, self.out = nn.EmbeddingBag(30, 8, **options), nn.Linear(8, 4)

    def forward(self, words):
        return self.out(self.bag(words).relu())


class Ragged(Bags):
    def forward(self, words, starts):
        return self.out(self.bag(words, starts).relu())


class Weighted(Bags):
    def forward(self, words, weights):
        return self.out(self.bag(words, per_sample_weights=weights).relu())


def words(*shape):
    return torch.randint(0, 30, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", [{"mode": "sum"}, {"mode": "mean", "padding_idx": 3}, {"mode": "max"}], ids=str)
def test_features_of_bags_of_embeddings_go(options):
    torch.manual_seed(0)
    model = Bags(**options)
    graph, found, small = check(model, words(4, 5))
    assert [(group.name, group.units) for group in found.groups] == [("bag", 8)]
    assert graph.cost().macs == 8 * 4  # sums multiply nothing
    written = small.write_into(copy.deepcopy(model).eval())
    assert written.bag.embedding_dim == 4 and close(written(words(3, 5)), small(words(3, 5)), 1e-5)


def test_features_of_weighted_bags_go_and_their_weights_count():
    torch.manual_seed(0)
    graph, found, _ = check(Weighted(mode="sum"), words(4, 5), torch.rand(4, 5))
    assert [group.units for group in found.groups] == [8]
    assert graph.cost().macs == 5 * 8 + 8 * 4


def test_bags_of_lengths_of_their_own_stay_as_many():
    graph = capture(
        Ragged(mode="sum").eval(),
        (words(12), torch.tensor([0, 3, 5, 9])),
        dynamic={"words": (0,), "starts": (0,)},
    )
    small = pj.prune(graph, 0.5)
    assert small(words(7), torch.tensor([0, 2])).shape == (2, 4) and small.tensor("bag.weight").shape == (30, 4)


def test_a_file_with_bags_of_embeddings_is_profiled(tmp_path):
    file = pj.lower(capture(Bags(mode="mean").eval(), words(4, 5)), path=tmp_path / "bags.onnx")
    assert sum(node.macs for node in pj.targets.profile(file)) == 8 * 4
