import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from penjing.graph import capture


def both(model, *example):
    torch.manual_seed(0)
    return model, capture(model, example)


def assert_same_in_training(model, graph, *inputs):
    model.train(), graph.train()
    torch.manual_seed(7)
    expected = model(*inputs)
    torch.manual_seed(7)
    actual = graph(*inputs)
    leaves = torch.utils._pytree.tree_leaves
    for a, b in zip(leaves(actual), leaves(expected), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    model.eval(), graph.eval()
    for a, b in zip(leaves(graph(*inputs)), leaves(model(*inputs)), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Dropout(0.5), (4, 6)),
        (nn.Dropout2d(0.5), (4, 6, 3, 3)),
        (nn.AlphaDropout(0.5), (4, 6)),
        (nn.FeatureAlphaDropout(0.5), (4, 6, 3, 3)),
        (nn.RReLU(), (4, 6)),
        (nn.BatchNorm1d(6), (4, 6)),
        (nn.BatchNorm2d(6), (4, 6, 3, 3)),
        (nn.BatchNorm2d(6, affine=False), (4, 6, 3, 3)),
        (nn.BatchNorm2d(6, track_running_stats=False), (4, 6, 3, 3)),
        (nn.BatchNorm2d(6, momentum=0.3), (4, 6, 3, 3)),
        (nn.InstanceNorm2d(6), (4, 6, 3, 3)),
        (nn.InstanceNorm2d(6, track_running_stats=True), (4, 6, 3, 3)),
        (nn.LSTM(6, 5, num_layers=2, dropout=0.5, batch_first=True), (4, 3, 6)),
        (nn.GRU(6, 5, num_layers=2, dropout=0.5, batch_first=True), (4, 3, 6)),
        (nn.RNN(6, 5, num_layers=2, dropout=0.5, batch_first=True), (4, 3, 6)),
        (nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True), (4, 3, 8)),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, nn.Module) else "",
)
def test_training_and_evaluation_are_those_of_the_model(model, shape):
    model, graph = both(model, torch.randn(shape))
    assert_same_in_training(model, graph, torch.randn(shape))
    for name, value in model.named_buffers():
        if "num_batches" not in name:
            assert torch.allclose(graph.tensor(name), value, atol=1e-6), name


@pytest.mark.parametrize("form", ["float", "module", "multihead"])
def test_attention_dropout_follows_the_mode(form):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn_drop = nn.Dropout(0.5) if form == "module" else 0.5
            self.many = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)

        def forward(self, x):
            if form == "multihead":
                return self.many(x, x, x, need_weights=False)[0]
            p = self.attn_drop.p if form == "module" else self.attn_drop
            q = x.unflatten(2, (2, 4)).transpose(1, 2)
            return F.scaled_dot_product_attention(q, q, q, dropout_p=p if self.training else 0.0)

    model, graph = both(Attention(), torch.randn(3, 5, 8))
    assert_same_in_training(model, graph, torch.randn(3, 5, 8))


def test_functional_batch_norm_without_statistics_is_the_same_in_both_modes():
    class Functional(nn.Module):
        def forward(self, x):
            return F.batch_norm(x, None, None, training=True)

    model, graph = both(Functional(), torch.randn(4, 6))
    x = torch.randn(4, 6)
    assert torch.equal(graph.train()(x), graph.eval()(x)) and torch.allclose(graph(x), model(x))


def test_dropout_that_is_always_on_stays_on():
    class Always(nn.Module):
        def forward(self, x):
            return x * 0 * F.dropout(x, 0.5, training=True)

    _, graph = both(Always(), torch.randn(4, 6))
    target = torch.ops.aten.dropout.default
    flags = [n.args[2] for n in graph.train().eval().program.graph.nodes if n.target is target]
    assert flags == [True]


def test_running_statistics_move_in_training_only():
    model, graph = both(nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5))
    before = graph.tensor("running_mean").clone()
    x = torch.randn(4, 3, 5, 5) + 2
    graph(x)
    assert torch.equal(graph.tensor("running_mean"), before)
    graph.train()(x), model.train()(x)
    assert torch.allclose(graph.tensor("running_mean"), model.running_mean)
    assert torch.allclose(graph.tensor("running_var"), model.running_var)


def test_a_mode_of_a_copy_is_its_own():
    _, graph = both(nn.Dropout(0.5), torch.randn(4, 6))
    other = copy.deepcopy(graph).train()
    x = torch.randn(4, 6)
    assert not torch.equal(other(x), x) and torch.equal(graph(x), x)


def test_a_quantised_graph_trains_through_its_quantisers_and_computes_the_same():
    _, graph = both(nn.Linear(6, 4), torch.randn(4, 6))
    ops = torch.ops.quantized_decomposed
    nodes = graph.program.graph
    linear = next(n for n in nodes.nodes if n.target is torch.ops.aten.linear.default)
    arguments = (0.02, 0, -128, 127, torch.int8)
    with nodes.inserting_before(linear):
        for position in (0, 1):
            q = nodes.call_function(ops.quantize_per_tensor.default, (linear.args[position], *arguments))
            linear.update_arg(position, nodes.call_function(ops.dequantize_per_tensor.default, (q, *arguments)))
    graph.refresh()
    x = torch.randn(5, 6)
    expected = graph.eval()(x)
    actual = graph.train()(x)
    assert torch.equal(actual, expected)
    actual.sum().backward()
    assert graph.tensor("weight").grad.abs().sum() > 0
    assert "quantized_decomposed" in graph.eval().program.code
