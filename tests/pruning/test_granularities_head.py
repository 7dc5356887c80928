"""Heads of attention as units."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from networks.attention import Decoder, Encoder, GroupedQuery, Packed, Windows
from networks.llama import Llama
from penjing import load, zoo
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import capture, channels, heads
from penjing.pruning import criteria, prune
from penjing.report import words
from penjing.targets import lower, run
from penjing.tasks import Classification

BY_WEIGHT = [name for name, entry in criteria.items() if entry.level == "weight"]
TOKENS = torch.randint(20, (2, 7), generator=torch.Generator().manual_seed(0))
NETWORKS = {
    "fused": (lambda: Encoder(fused_op=True), torch.randn(2, 5, 5), {"attention.qkv": 4}),
    "written out": (lambda: Encoder(fused_op=False), torch.randn(2, 5, 5), {"attention.qkv": 4}),
    "packed": (Packed, torch.randn(2, 6, 5), {"attention": 4}),
    "windows": (Windows, torch.randn(2, 3, 8, 8), {"attention.qkv": 2}),
    "grouped queries": (Decoder, TOKENS, {"attentions.0.q": 2, "attentions.1.q": 2}),
    "llama": (Llama, TOKENS, {"blocks.0.attention.q_proj": 4, "blocks.1.attention.q_proj": 4}),
    "encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2),
        torch.randn(2, 6, 16),
        {"layers.0.self_attn": 4, "layers.1.self_attn": 4},
    ),
}


@pytest.fixture(scope="module")
def graphs():
    torch.manual_seed(0)
    return {name: capture(make().eval(), x) for name, (make, x, _) in NETWORKS.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_heads_are_found_whoever_wrote_the_attention(name, graphs):
    found = heads(graphs[name], channels(graphs[name], units="heads"))
    assert {group.name: group.units for group in found} == NETWORKS[name][2]


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_the_heads_go_and_outputs_keep_their_shape(name, graphs):
    graph, x = graphs[name], NETWORKS[name][1]
    small = prune(graph, 0.5, granularity="head")
    assert small.cost().params < graph.cost().params and small.cost().macs < graph.cost().macs
    assert small(x).shape == graph(x).shape and torch.isfinite(small(x)).all()
    assert {step.place.path: (step.before, step.after) for step in small.plan} == {
        place: (units, units // 2) for place, units in NETWORKS[name][2].items()
    }
    small.train()(x).sum().backward()


@settings(max_examples=6, deadline=None)
@given(amount=st.floats(0, 1, exclude_max=True), allocation=st.sampled_from(["uniform", "global"]))
def test_as_many_heads_go_as_asked_for_and_the_rest_stays_whole(amount, allocation, graphs):
    graph, x = graphs["encoder"], NETWORKS["encoder"][1]
    small = prune(graph, amount, granularity="head", allocation=allocation)
    left = [small.tensor(f"layers.{i}.self_attn.in_proj_weight").shape[0] // 12 for i in range(2)]
    assert min(left) >= 1
    if allocation == "uniform":
        assert left == [4 - min(math.floor(4 * amount + 0.5), 3)] * 2
    else:
        assert sum(left) == 8 - min(math.floor(8 * amount + 0.5), 6)
    assert graph.cost().params - small.cost().params == (8 - sum(left)) * (12 * 16 + 12 + 4 * 16)
    assert small(x).shape == x.shape


def test_a_head_that_is_taken_out_is_one_that_writes_nothing(graphs):
    """Michel et al. take a head out by setting what it gives to zero; so what reads it is set to zero here."""
    graph = graphs["fused"]
    small = prune(graph, 0.5, granularity="head")
    qkv = graph.tensor("attention.qkv.weight").detach().reshape(3, 4, 4, 16)
    weakest = qkv.square().sum((0, 2, 3)).argsort()[:2]
    expected = prune(graph, 0.0)
    with torch.no_grad():
        expected.tensor("attention.proj.weight").view(16, 4, 4)[:, weakest] = 0
        x = torch.randn(3, 5, 5)
        torch.testing.assert_close(small(x), expected(x), atol=1e-5, rtol=1e-5)


def test_a_key_head_goes_with_the_query_heads_that_it_serves():
    graph = capture(GroupedQuery().eval(), torch.randn(2, 7, 16))
    small = prune(graph, 0.5, granularity="head")
    assert small.tensor("q.weight").shape == (8, 16) and small.tensor("k.weight").shape == (4, 16)
    assert small.tensor("o.weight").shape == (16, 8)


def test_features_that_are_no_heads_stay(graphs):
    small = prune(graphs["fused"], 0.5, granularity="head")
    assert small.tensor("up.weight").shape == graphs["fused"].tensor("up.weight").shape


@pytest.mark.parametrize("criterion", BY_WEIGHT)
def test_every_criterion_of_weights_ranks_heads(criterion, graphs):
    generator = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(4, 5, 5, generator=generator), torch.randint(3, (4,), generator=generator)) for _ in range(2)
    ]
    data = Data(batches, batches, None, Classification(3))
    small = prune(graphs["fused"], 0.5, criterion=criterion, granularity="head", data=data)
    assert small.tensor("attention.qkv.weight").shape == (24, 16)


def test_the_smaller_attention_is_saved_and_lowered(graphs, tmp_path):
    small = prune(graphs["packed"], 0.5, granularity="head")
    small.save(tmp_path / "small.penjing")
    x = torch.randn(3, 6, 5)
    torch.testing.assert_close(load(tmp_path / "small.penjing")(x), small(x))
    torch.testing.assert_close(run(lower(small, path=tmp_path / "m.onnx"), x), small(x), atol=1e-5, rtol=1e-5)


def test_the_last_head_stays(graphs):
    small = prune(graphs["fused"], 0.99, granularity="head")
    assert [(step.after, words(step.to_json())) for step in small.plan] == [(1, "head, l2, uniform; at least 1 stays")]


class Weighed(nn.Module):
    """Softmaxes that are no attention: of classes, of branches, and of pooled positions."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.gate, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 2), nn.Linear(8, 4)

    def forward(self, x):
        branches = torch.stack([self.a(x), self.b(x)], -1)
        return self.head((branches * self.gate(x).softmax(-1)[..., None, :]).sum(-1)).softmax(-1)


def test_a_model_without_attention_is_refused(graphs):
    for graph in (capture(Weighed(), torch.randn(2, 6)), capture(zoo.resnet20(), torch.randn(2, 3, 16, 16))):
        with pytest.raises(
            PenjingError, match=r"No head of attention can be removed: .*granularity='filter' needs none"
        ):
            prune(graph, 0.5, granularity="head")
    with pytest.raises(PenjingError, match="No head of attention"):
        prune(graphs["encoder"], 0.5, granularity="head", exclude=["layers.*"])


def test_other_units_are_refused(graphs):
    with pytest.raises(PenjingError, match="granularity='head' removes heads, not units='features': leave units out"):
        prune(graphs["fused"], 0.5, granularity="head", units="features")
