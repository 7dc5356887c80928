"""What pruning may touch: least widths, allowed widths, kinds of units, outputs that keep their shapes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.pruning import prune
from penjing.pruning.allocations._registry import at_least, rounded
from penjing.report import words

SHARED = ["uniform", "global", "lamp", "erk"]  # allocations of one share for all


def widths(graph):
    return [graph.tensor(f"conv{i}.weight").shape[0] for i in (1, 2)]


@given(st.integers(1, 60), st.integers(1, 40), st.none() | st.integers(1, 20), st.integers(0, 60))
def test_a_least_number_is_kept_in_multiples_of_the_step(units, least, step, wanted):
    kept = rounded(wanted, units, at_least(least, step))
    assert kept == units or (kept >= least and kept % (step or 1) == 0)
    assert kept >= rounded(wanted, units, step)
    if least <= (step or 1):
        assert kept == rounded(wanted, units, step)


@pytest.mark.parametrize("allocation", SHARED)
@pytest.mark.parametrize(
    ("least", "round_to", "kept"),
    [(1, None, [1, 1]), (3, None, [3, 3]), (7, None, [6, 7]), (3, 4, [4, 4]), (5, 4, [6, 8])],
)
def test_every_group_keeps_its_least_number_of_channels(least, round_to, kept, allocation, chain):
    small = prune(chain, 0.95, min_channels=least, round_to=round_to, allocation=allocation)
    assert widths(small) == kept


def test_a_function_may_round_and_the_least_number_has_the_last_word(chain):
    assert widths(prune(chain, 0.5, round_to=lambda wanted: wanted // 2 * 2)) == [2, 4]
    assert widths(prune(chain, 0.5, round_to=lambda wanted: np.int64(wanted) // 2 * 2, min_channels=3)) == [3, 4]
    with pytest.raises(PenjingError, match=r"whole number of units, and for 3 gave 1\.5"):
        prune(chain, 0.5, round_to=lambda wanted: wanted / 2)


@pytest.mark.parametrize("least", [0, -3])
def test_a_least_number_below_one_is_refused(least, chain):
    with pytest.raises(PenjingError, match=r"min_channels=.*: it must be a whole number from 1"):
        prune(chain, 0.5, min_channels=least)


def notes(graph):
    return [(s.place.path, s.before, s.after, words(s.to_json()).partition("; ")[2]) for s in graph.plan]


def test_the_plan_tells_where_the_last_units_stayed(chain):
    assert notes(prune(chain, 0.5)) == [("conv1", 6, 3, ""), ("conv2", 8, 4, "")]
    assert notes(prune(chain, 0.95)) == [("conv1", 6, 1, "at least 1 stays"), ("conv2", 8, 1, "at least 1 stays")]
    assert notes(prune(chain, 0.8, round_to=4)) == [
        ("conv1", 6, 4, "at least 4 stay"),
        ("conv2", 8, 4, "at least 4 stay"),
    ]
    assert notes(prune(chain, 0.5, round_to=4)) == [("conv1", 6, 4, "at least 4 stay"), ("conv2", 8, 4, "")]
    assert notes(prune(chain, 0.5, min_channels=7)) == [
        ("conv1", 6, 6, "at least 6 stay"),
        ("conv2", 8, 7, "at least 7 stay"),
    ]
    assert not prune(chain, 0.0, round_to=4).plan


def test_every_output_keeps_its_shape():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, 1)
            self.inner, self.side, self.head = nn.Conv2d(12, 16, 1), nn.Conv2d(16, 12, 1), nn.Linear(12, 5)

        def forward(self, x):
            shallow = torch.relu(self.stem(x))
            deep = torch.relu(self.down(shallow))
            deep = deep + self.side(torch.relu(self.inner(deep)))
            return {"features": [deep, shallow[:, :4]], "logits": self.head(deep.mean((2, 3)))}

    graph = capture(Pyramid(), torch.randn(2, 3, 8, 8))
    small = prune(graph, 0.75)
    x = torch.randn(3, 3, 8, 8)
    before, after = graph(x), small(x)
    assert [t.shape for t in after["features"]] == [t.shape for t in before["features"]]
    assert after["logits"].shape == before["logits"].shape
    assert small.tensor("inner.weight").shape == (4, 12, 1, 1)  # the only channels that no output shows
    assert small.tensor("stem.weight").shape == (5, 3, 3, 3)  # of the four behind those shown, three went


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(5, 3 * 24), nn.Linear(24, 5)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(x.shape[0], x.shape[1], 3, 4, 6).permute(2, 0, 3, 1, 4).unbind(0)
        x = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(x.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("units", "shapes"), [("heads", {(2, 6)}), ("features", {(4, 3)})])
def test_units_of_attention_are_heads_or_features(units, shapes):
    graph = capture(Attention(), torch.randn(2, 7, 5))
    small = prune(graph, 0.5, units=units)
    seen = {
        tuple(int(n) for n in (node.meta["val"].shape[1], node.meta["val"].shape[3]))
        for node in small.program.graph.nodes
        if node.target is torch.ops.aten.scaled_dot_product_attention.default
    }
    assert seen == shapes and small.tensor("qkv.weight").shape == (36, 5)
    with pytest.raises(PenjingError, match="Did you mean 'heads'"):
        prune(graph, 0.5, units="head")


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_path(chain):
    for option in ("include", "exclude"):
        with pytest.raises(PenjingError, match=r"Unknown module pattern 'conv3'\. Did you mean 'conv\d'\?"):
            prune(chain, 0.5, **{option: ["conv3"]})


def test_a_model_whose_every_channel_is_pinned_is_an_error_that_names_the_ops_and_the_lines():
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.two(torch.cummax(self.one(x), 1).values)

    graph = capture(Sorted(), torch.randn(2, 5))
    with pytest.raises(
        PenjingError, match=r"all are pinned, by .*aten\.cummax\.default at .*test_scope.*torch\.cummax"
    ):
        prune(graph, 0.5)
