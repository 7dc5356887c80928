import copy

import numpy as np
import pytest
import torch
from surgery_networks import networks, randomised
from torch import nn

from penjing import zoo
from penjing.errors import PenjingError
from penjing.graph import capture, channels, fold_batch_norms, remove


def state(model):
    attributes = [{k: v for k, v in m.__dict__.items() if isinstance(v, int | tuple)} for m in model.modules()]
    return {k: v.clone() for k, v in model.state_dict().items()}, attributes


def assert_unchanged(model, before):
    tensors, attributes = before
    now, other = state(model)
    assert list(now) == list(tensors) and all(torch.equal(now[k], tensors[k]) for k in now)
    assert attributes == other


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    model = randomised(zoo.resnet20())
    graph = capture(model, torch.randn(2, 3, 32, 32))
    return model, graph, channels(graph)


def test_a_resnet_of_which_inner_channels_went_is_the_graph(resnet):
    model, graph, found = copy.deepcopy(resnet[0]), *resnet[1:]
    inner = {
        i: np.arange(g.units // 2) for i, g in enumerate(found.groups) if g.name.endswith("conv1") and "." in g.name
    }
    assert len(inner) == 9
    small = remove(graph, found, inner)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.fill_(7)
    assert small.write_into(model) is model
    x = torch.randn(3, 3, 32, 32)
    assert torch.allclose(model(x), small(x), atol=1e-5)
    block = model.layer1[0]
    assert (block.conv1.out_channels, block.bn1.num_features, block.conv2.in_channels) == (8, 8, 8)
    assert block.bn1.num_batches_tracked == 7
    model.train()(x).sum().backward()
    assert model.layer1[0].conv1.weight.grad.shape == (8, 16, 3, 3)
    assert small.tensor("layer1.0.conv1.weight").grad is None


def test_a_shortcut_that_fixes_its_padding_is_refused_and_named(resnet):
    model, graph, found = copy.deepcopy(resnet[0]), *resnet[1:]
    stage = [i for i, g in enumerate(found.groups) if any(e.tensor == "linear.weight" for e in g.entries)]
    small = remove(graph, found, {i: [0] for i in stage if found.groups[i].units > 1})
    model.train()
    before = state(model)
    with pytest.raises(PenjingError, match=r"module 'layer\d.0'.*_resnet.py(.|\n)*left as it was"):
        small.write_into(model)
    assert model.training
    assert_unchanged(model, before)


def test_a_vgg_takes_its_smaller_graph():
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in ((3, 8), (8, 8), (8, 12)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(True), nn.MaxPool2d(2)]
    model = randomised(nn.Sequential(*layers, nn.Flatten(), nn.Linear(12 * 16, 10)))
    graph = capture(model, torch.randn(2, 3, 32, 32))
    found = channels(graph)
    small = remove(graph, found, {i: np.arange(g.units // 2) for i, g in enumerate(found.groups)})
    small.write_into(model)
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(model(x), small(x), atol=1e-5)
    assert model[-1].in_features == 96 and model[8].out_channels == 6
    again = capture(model, x)
    assert again.cost().macs == small.cost().macs


@pytest.mark.parametrize("name", ["inverted residual", "depthwise with multiplier", "grouped", "gates", "tied"])
def test_sizes_of_every_layer_follow(name):
    torch.manual_seed(0)
    model = randomised(networks()[name])
    graph = capture(model, torch.randn(2, 3, 8, 8))
    found = channels(graph)
    small = remove(graph, found, {i: [0] for i, g in enumerate(found.groups) if g.units > 1})
    small.write_into(model)
    x = torch.randn(3, 3, 8, 8)
    assert torch.allclose(model(x), small(x), atol=1e-5)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv1d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)
    if name == "tied":
        assert model.one.weight is model.two.weight


def test_a_size_in_the_models_code_is_named():
    torch.manual_seed(0)
    model = randomised(networks()["squeeze and excite, linear"])
    graph = capture(model, torch.randn(2, 3, 8, 8))
    found = channels(graph)
    before = state(model)
    with pytest.raises(PenjingError, match=r"surgery_networks\.py:\d+ .*gate\.view"):
        remove(graph, found, {i: [0] for i, g in enumerate(found.groups)}).write_into(model)
    assert_unchanged(model, before)


def test_trained_weights_go_back_and_share_nothing():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = capture(model, torch.randn(2, 3))
    with torch.no_grad():
        graph.tensor("0.weight").add_(1)
    graph.train().write_into(model)
    assert graph.training
    assert torch.equal(model[0].weight, graph.tensor("0.weight")) and model[0].weight is not graph.tensor("0.weight")


def test_folded_norms_have_no_place_in_the_model():
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    graph = fold_batch_norms(capture(model, torch.randn(2, 3, 8, 8)))
    before = state(model)
    with pytest.raises(PenjingError, match="something else, first in module '"):
        graph.write_into(model)
    assert_unchanged(model, before)


def test_another_model_is_refused():
    graph = capture(nn.Sequential(nn.Linear(3, 4)), torch.randn(2, 3))
    model = nn.Linear(3, 4)
    with pytest.raises(PenjingError, match=r"no place for 0\.bias and 1 more"):
        graph.write_into(model)


class Heads(nn.Module):
    """Attention whose code counts its heads by an attribute, as most do; `depth` counts something else."""

    def __init__(self, heads=4):
        super().__init__()
        self.num_heads, self.head_dim, self.dim, self.depth = heads, 8, 32, heads
        self.qkv, self.proj = nn.Linear(32, 24 * heads), nn.Linear(8 * heads, 32)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        x = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        return self.proj(x) if n < 100 else self.proj(x) * self.depth


@pytest.mark.parametrize("count", [4, 3])  # as many heads as there are queries, keys and values: 3 says nothing alone
def test_the_number_of_heads_that_a_module_keeps_is_updated(count):
    model = nn.Sequential(nn.Linear(5, 32), Heads(count), nn.Linear(32, 3))
    graph = capture(model, torch.randn(2, 6, 5))
    found = channels(graph, units="heads")
    heads = next(i for i, group in enumerate(found.groups) if group.name == "1.qkv" and group.units == count)
    small = remove(graph, found, {heads: np.arange(count - 2) + 1})
    small.write_into(model)
    assert (model[1].num_heads, model[1].head_dim, model[1].dim, model[1].depth) == (2, 8, 32, count)
    assert (model[1].qkv.out_features, model[1].proj.in_features) == (48, 16)
    x = torch.randn(3, 7, 5)[:, :6]
    assert torch.allclose(model(x), small(x), atol=1e-5)


def test_the_number_of_heads_is_updated_also_where_the_length_is_free():
    model = nn.Sequential(nn.Linear(5, 32), Heads(4), nn.Linear(32, 3))
    graph = capture(model, torch.randn(2, 16, 5), dynamic={"input": (0, 1)})
    found = channels(graph, units="heads")
    heads = next(i for i, group in enumerate(found.groups) if group.name == "1.qkv" and group.units == 4)
    small = remove(graph, found, {heads: np.array([0, 2])})
    small.write_into(model)
    assert (model[1].num_heads, model[1].head_dim) == (2, 8)
    x = torch.randn(3, 9, 5)
    assert torch.allclose(model(x), small(x), atol=1e-5)


def test_the_hidden_size_of_a_recurrent_layer_is_updated():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(5, 12, num_layers=2, batch_first=True, bidirectional=True), nn.Linear(24, 3)

        def forward(self, x):
            return self.head(self.lstm(x)[0])

    model = Tagger()
    graph = capture(model, torch.randn(2, 6, 5))
    found = channels(graph)
    small = remove(graph, found, {i: np.arange(group.units // 2) for i, group in enumerate(found.groups)})
    small.write_into(model)
    assert (model.lstm.hidden_size, model.head.in_features) == (6, 12)
    x = torch.randn(2, 6, 5)
    assert torch.allclose(model(x), small(x), atol=1e-5)
    model(x).sum().backward()
    assert model.lstm.weight_hh_l1_reverse.grad.shape == (24, 6)


def test_what_failed_is_told_also_where_the_model_refuses_to_be_captured_again():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.eager = nn.Linear(5, 8), nn.Linear(8, 3), False

        def forward(self, x):
            if self.eager and x.sum() > 1e9:
                return x
            return self.two(self.one(x).reshape(-1, 8))

    model = Fixed()
    graph = capture(model, torch.randn(2, 5))
    small = remove(graph, channels(graph), {0: np.arange(4)})
    model.eager = True
    with pytest.raises(PenjingError, match=r"fixes a size .* in the model \(Fixed\)"):
        small.write_into(model)
