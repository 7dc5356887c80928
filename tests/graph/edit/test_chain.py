"""A chain of layers in the place of one: it computes the same, keeps the origin, and its tensors follow the weight's name.

The oracle is linear algebra: a weight that is multiplied out of its singular vectors is the same layer.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from penjing.errors import PenjingError
from penjing.graph import capture, channels, load
from penjing.graph.edit.chain import Link, replace_by_chain
from penjing.graph.ops import node_arguments

aten = torch.ops.aten


class Block(nn.Module):
    """A convolution between two others, under a path of several parts, and a classifier."""

    def __init__(self, bias=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.layer1 = nn.Sequential(nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=bias), nn.ReLU()))
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.layer1(torch.relu(self.stem(x))).mean((2, 3)))


class Twice(nn.Module):
    """One linear layer, called twice, and one of its own that shares the first one's weight where that is asked for."""

    def __init__(self, tied=False):
        super().__init__()
        self.same, self.other = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        if tied:
            self.other.weight = self.same.weight

    def forward(self, x):
        return self.other(torch.relu(self.same(torch.relu(self.same(x)))))


X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
FLAT = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


def captured(model, x=X, **options):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return capture(model.eval(), x, **options)


def layers(graph, path):
    """The nodes of the layers that read this weight."""
    nodes = graph.program.graph.nodes
    return [n for n in nodes if any(one.op == "get_attr" and one.target == path for one in n.all_input_nodes)]


def two_linear(graph, layer):
    """A linear layer as two, by the singular value decomposition of its weight at full rank."""
    weight, bias = (None if one is None else graph.tensor(str(one.target)) for one in node_arguments(layer)[1:3])
    u, s, vh = torch.linalg.svd(weight.detach(), full_matrices=False)
    return [Link(aten.linear.default, s[:, None] * vh), Link(aten.linear.default, u, bias)]


def three_convolutions(graph, layer):
    """A convolution as 1×1, its own size, and 1×1, by the decompositions of the two unfoldings of its weight (Tucker-2)."""
    _, weight, bias, stride, padding, dilation, groups = node_arguments(layer)
    weight, bias = graph.tensor(str(weight.target)).detach(), None if bias is None else graph.tensor(str(bias.target))
    out, _, _ = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    into, _, _ = torch.linalg.svd(weight.transpose(0, 1).flatten(1), full_matrices=False)
    core = torch.einsum("oihw,or,is->rshw", weight, out, into)
    still = ([1, 1], [0, 0], [1, 1], 1)
    return [
        Link(aten.conv2d.default, into.T[:, :, None, None], None, still),
        Link(aten.conv2d.default, core, None, (stride, padding, dilation, groups)),
        Link(aten.conv2d.default, out[:, :, None, None], bias, still),
    ]


def close(ours, theirs):
    return torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_linear_layer_as_two_gives_the_same():
    graph = captured(Block())
    small = copy.deepcopy(graph)
    (layer,) = layers(small, "fc.weight")
    assert replace_by_chain(small, [layer], two_linear(small, layer)) == ("fc.0.weight", "fc.1.weight")
    small.refresh()
    assert close(small(X), graph(X))
    assert "fc.weight" not in small.tensors() and "fc.bias" not in small.tensors()
    assert [name for name in small.tensors() if name.startswith("fc")] == ["fc.0.weight", "fc.1.weight", "fc.1.bias"]


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_as_three_gives_the_same(bias):
    graph = captured(Block(bias), dynamic={"x": (2, 3)})
    small = copy.deepcopy(graph)
    (layer,) = layers(small, "layer1.0.0.weight")
    names = replace_by_chain(small, [layer], three_convolutions(small, layer))
    small.refresh()
    assert names == tuple(f"layer1.0.0.{number}.weight" for number in range(3))
    wide = torch.cat([X, X], 3)
    assert close(small(X), graph(X)) and close(small(wide), graph(wide))


def test_the_links_keep_the_origin_and_the_last_one_the_name():
    graph = captured(Block())
    row = next(row for row in graph.cost().rows if row.module == "layer1.0.0" and row.macs)
    (layer,) = layers(graph, "layer1.0.0.weight")
    source = layer.meta["source"]
    replace_by_chain(graph, [layer], three_convolutions(graph, layer))
    graph.refresh()
    rows = [one for one in graph.cost().rows if one.module == "layer1.0.0" and one.macs]
    assert [one.node for one in rows] == [f"{row.node}_link", f"{row.node}_link_1", row.node]
    # 6 → 6 channels at 10×10, then 3×3 to 8 channels at 5×5, then 8 → 8 at 5×5
    assert [one.macs for one in rows] == [6 * 6 * 100, 6 * 8 * 9 * 25, 8 * 8 * 25]
    nodes = {node.name: node for node in graph.program.graph.nodes}
    assert source and all(nodes[one.node].meta["source"] == source for one in rows)


def test_names_are_the_same_every_time():
    def made():
        graph = captured(Block())
        for path, chain in (("layer1.0.0.weight", three_convolutions), ("fc.weight", two_linear)):
            (layer,) = layers(graph, path)
            replace_by_chain(graph, [layer], chain(graph, layer))
        return [node.name for node in graph.refresh().program.graph.nodes], list(graph.tensors())

    assert made() == made()
    names, _ = made()
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("compact", [False, True])
def test_a_chain_is_saved_and_loaded(compact, tmp_path):
    graph = captured(Block())
    (layer,) = layers(graph, "layer1.0.0.weight")
    replace_by_chain(graph, [layer], three_convolutions(graph, layer))
    graph.refresh().save(tmp_path / "chain.penjing", compact=compact)
    again = load(tmp_path / "chain.penjing")
    assert torch.equal(again(X), graph(X))
    assert [node.name for node in again.program.graph.nodes] == [node.name for node in graph.program.graph.nodes]


def test_the_channels_inside_a_chain_are_groups_of_their_own():
    graph = captured(Block())
    (layer,) = layers(graph, "layer1.0.0.weight")
    replace_by_chain(graph, [layer], three_convolutions(graph, layer))
    groups = {group.made_by(): group.units for group in channels(graph.refresh()).groups}
    assert groups[("layer1.0.0.0.weight",)] == 6 and groups[("layer1.0.0.1.weight",)] == 8
    assert groups[("layer1.0.0.2.weight",)] == 8 and groups[("stem.weight",)] == 6


def test_a_link_can_be_replaced_by_a_chain_in_turn():
    graph = captured(Block())
    before = graph(X)
    for path in ("fc.weight", "fc.1.weight"):
        (layer,) = layers(graph, path)
        names = replace_by_chain(graph, [layer], two_linear(graph, layer))
    assert names == ("fc.1.0.weight", "fc.1.1.weight")
    assert close(graph.refresh()(X), before)


def test_layers_that_share_a_weight_share_the_chain():
    graph = captured(Twice(), FLAT)
    before, both = graph(FLAT), layers(graph, "same.weight")
    assert len(both) == 2
    replace_by_chain(graph, both, two_linear(graph, both[0]))
    assert close(graph.refresh()(FLAT), before)
    assert "same.weight" not in graph.tensors() and "same.bias" not in graph.tensors()
    assert sum(p.numel() for name, p in graph.named_parameters() if name.startswith("same")) == 6 * 6 * 2 + 6


def test_a_weight_that_another_layer_reads_stays_for_it():
    graph = captured(Twice(), FLAT)
    before, (first, second) = graph(FLAT), layers(graph, "same.weight")
    replace_by_chain(graph, [first], two_linear(graph, first))
    assert close(graph.refresh()(FLAT), before)
    names = list(graph.tensors())
    assert {"same.weight", "same.bias", "same.0.weight", "same.1.weight", "same.1.bias"} <= set(names)
    assert graph.tensor("same.1.bias") is graph.tensor("same.bias")  # still the one that both calls add
    assert second.name in [node.name for node in graph.program.graph.nodes]


def test_a_tied_weight_stays_under_all_of_its_names_while_it_is_read_and_goes_with_its_last_reader():
    graph = captured(Twice(tied=True), FLAT)
    before, names = graph(FLAT), [name for name, t in graph.tensors().items() if t is graph.tensor("same.weight")]
    assert names == ["same.weight", "other.weight"]
    readers = [node for node in graph.program.graph.nodes if node.target is aten.linear.default]
    replace_by_chain(graph, readers[:2], two_linear(graph, readers[0]))
    assert set(names) <= set(graph.tensors())
    replace_by_chain(graph, readers[2:], two_linear(graph, readers[2]))
    assert not set(names) & set(graph.tensors())
    assert close(graph.refresh()(FLAT), before)


def test_the_mask_of_a_weight_that_went_goes_with_it():
    graph = captured(Block())
    graph.masks["fc.weight"] = torch.ones(4, 8, dtype=torch.bool)
    (layer,) = layers(graph, "fc.weight")
    replace_by_chain(graph, [layer], two_linear(graph, layer))
    graph.refresh().apply_masks()
    assert not graph.masks


def test_frozen_weights_give_frozen_chains():
    graph = captured(Block())
    graph.tensor("fc.weight").requires_grad_(False)
    (layer,) = layers(graph, "fc.weight")
    names = replace_by_chain(graph, [layer], two_linear(graph, layer))
    assert not any(graph.tensor(name).requires_grad for name in names) and graph.tensor("fc.1.bias").requires_grad


class Crowded(nn.Module):
    """A module with a weight of its own and a child that has the name of a link."""

    def __init__(self):
        super().__init__()
        self.weight, self.in_proj_weight = nn.Parameter(torch.ones(6, 6)), nn.Parameter(torch.ones(6, 6))
        self.add_module("0", nn.Linear(6, 6))

    def forward(self, x):
        return F.linear(F.linear(self.get_submodule("0")(x), self.weight), self.in_proj_weight)


def test_names_that_are_taken_are_left_alone():
    graph = captured(Crowded(), FLAT)
    before = graph(FLAT)
    names = []
    for path in ("weight", "in_proj_weight"):
        (layer,) = layers(graph, path)
        names += replace_by_chain(graph, [layer], two_linear(graph, layer))
    assert names == ["links.0.weight", "links.1.weight", "in_proj.0.weight", "in_proj.1.weight"]
    assert close(graph.refresh()(FLAT), before)


def test_a_chain_that_does_not_fit_is_refused_and_changes_nothing():
    graph = captured(Block())
    before, names = list(graph.tensors()), [node.name for node in graph.program.graph.nodes]
    (layer,) = layers(graph, "fc.weight")
    linear = aten.linear.default
    for chain, said in (
        ([Link(linear, torch.ones(3, 8)), Link(linear, torch.ones(4, 2))], "doesn't fit together at its layer 1"),
        ([Link(linear, torch.ones(3, 8)), Link(linear, torch.ones(5, 3))], "gives .*5.*, where the layer gives .*4"),
    ):
        with pytest.raises(PenjingError, match=f"The chain for fc {said}"):
            replace_by_chain(graph, [layer], chain)
    assert (list(graph.tensors()), [node.name for node in graph.program.graph.nodes]) == (before, names)


def test_what_is_no_layer_with_a_weight_of_its_own_is_refused():
    graph = captured(Block())
    nodes = list(graph.program.graph.nodes)
    relu = next(node for node in nodes if node.target is aten.relu.default)
    with pytest.raises(PenjingError, match="neither a convolution nor a linear layer"):
        replace_by_chain(graph, [relu], [])
    every = layers(graph, "stem.weight") + layers(graph, "fc.weight")
    with pytest.raises(PenjingError, match=r"several weights: fc\.weight, stem\.weight"):
        replace_by_chain(graph, every, [])


def test_a_quantised_layer_is_refused():
    from penjing.quantization import quantize

    graph = quantize(captured(Block()), [X])
    layer = next(node for node in graph.program.graph.nodes if node.target is aten.linear.default)
    with pytest.raises(PenjingError, match="The layer fc computes its weight"):
        replace_by_chain(graph, [layer], [])
