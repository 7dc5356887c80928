import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from surgery_networks import Head, block, conv, networks, randomised
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import Graph, capture, channels, load, remove
from penjing.graph.capture.verify import close

NAMES = list(networks())


@pytest.fixture(scope="module")
def captured():
    """Each network captured once."""
    torch.manual_seed(0)
    found = {}

    def get(name: str) -> Graph:
        if name not in found:
            torch.manual_seed(0)
            found[name] = capture(randomised(networks()[name]), torch.randn(2, 3, 8, 8))
        return found[name]

    return get


def without(graph: Graph, group, units) -> Graph:
    """The oracle: the same graph with zeros in every entry that carries one of the units."""
    zeroed = copy.deepcopy(graph)
    with torch.no_grad():
        for entry in group.entries:
            indices = torch.from_numpy(np.ascontiguousarray(entry.indices[units]).ravel())
            zeroed.tensor(entry.tensor).index_fill_(entry.axis, indices, 0.0)
    return zeroed


def some_units(group, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.permutation(group.units)[: max(1, group.units // 2)]


@pytest.mark.parametrize("name", NAMES)
def test_removing_units_is_zeroing_them(captured, name):
    graph = captured(name)
    found = channels(graph)
    x = torch.randn(3, 3, 8, 8)
    assert found.groups
    for position, group in enumerate(found.groups):
        if group.units == 1:
            continue
        units = some_units(group, position)
        small = remove(graph, found, {position: units})
        assert close(small(x), without(graph, group, units)(x), 1e-4), group.name
        dropped = sum(p.numel() for p in graph.parameters()) - sum(p.numel() for p in small.parameters())
        twice = len({entry.tensor for entry in group.entries}) < len(group.entries)  # read and made by one weight
        assert dropped == group.params * len(units) or (twice and dropped < group.params * len(units)), group.name
        one = remove(graph, found, {position: units[:1]})
        assert sum(p.numel() for p in graph.parameters()) - sum(p.numel() for p in one.parameters()) == group.params


@pytest.mark.parametrize("name", NAMES)
def test_half_of_every_group_goes_and_the_rest_trains_and_comes_back_from_a_file(captured, name, tmp_path):
    graph = captured(name)
    found = channels(graph)
    gone = {i: some_units(g, i) for i, g in enumerate(found.groups) if g.units > 1}
    expected = graph
    for position, units in gone.items():
        expected = without(expected, found.groups[position], units)
    small = remove(graph, found, gone)
    x = torch.randn(3, 3, 8, 8)
    assert close(small(x), expected(x), 1e-4)
    assert small.cost().macs < 0.8 * graph.cost().macs
    small.save(tmp_path / "m.penjing")
    assert torch.equal(load(tmp_path / "m.penjing")(x), small(x))
    small.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())
    again = channels(small.eval())
    assert [g.name for g in again.groups if g.units > 0] and len(again.groups) >= 1


def sizes(graph: Graph) -> list[int]:
    return sorted(group.units for group in channels(graph).groups)


def test_the_groups_are_those_counted_by_hand(captured):
    assert sizes(captured("flatten")) == [4, 6]
    assert sizes(captured("U-Net")) == [4, 4, 4, 8]
    assert sizes(captured("inverted residual")) == [4, 12]
    assert sizes(captured("squeeze and excite")) == [4, 6, 8]
    assert sizes(captured("squeeze and excite, linear")) == [4, 6, 8]
    assert sizes(captured("dense")) == [3, 3, 4, 6]
    assert sum(sizes(captured("option A"))) == 4 + 4 + 8 + 6  # stem's 4 with the padded 4, the inner blocks' 8 and 6


def test_removing_nothing_changes_nothing(captured):
    graph = captured("option A")
    found = channels(graph)
    x = torch.randn(2, 3, 8, 8)
    for gone in ({}, {0: np.array([], int)}):
        same = remove(graph, found, gone)
        assert torch.equal(same(x), graph(x)) and same.cost() == graph.cost()


def test_the_graph_itself_stays_as_it_was(captured):
    graph = captured("dense")
    x = torch.randn(2, 3, 8, 8)
    before, code = graph(x), graph.program.code
    remove(graph, channels(graph), {0: [0]})
    assert torch.equal(graph(x), before) and graph.program.code == code


def test_a_unit_that_is_named_twice_goes_once(captured):
    graph = captured("dense")
    found = channels(graph)
    units = found.groups[0].units
    once, twice = (remove(graph, found, {0: np.array(which)}) for which in ([0], [0] * (units + 1)))
    assert once.cost() == twice.cost()


def test_all_units_of_a_group_cannot_go(captured):
    graph = captured("dense")
    found = channels(graph)
    with pytest.raises(PenjingError, match="at least one must stay"):
        remove(graph, found, {0: range(found.groups[0].units)})


def test_ties_and_masks_shrink_along(captured):
    graph = copy.deepcopy(captured("tied"))
    graph.masks["one.weight"] = torch.rand(6, 6, 3, 3) > 0.5
    found = channels(graph)
    (position,) = [
        i for i, g in enumerate(found.groups) if any(e.tensor in ("one.weight", "two.weight") for e in g.entries)
    ]
    small = remove(graph, found, {position: [1, 4]})
    assert small.tensor("one.weight") is small.tensor("two.weight")
    kept = [0, 2, 3, 5]
    assert torch.equal(small.masks["one.weight"], graph.masks["one.weight"][kept][:, kept])


def test_frozen_parameters_and_plain_buffers_stay_what_they_are():
    model = nn.Sequential(block(3, 6), Head(6))
    model[0][0].weight.requires_grad_(False)
    graph = capture(model.eval(), torch.randn(2, 3, 8, 8))
    small = remove(graph, channels(graph), {0: [0, 1]})
    assert not small.tensor("0.0.weight").requires_grad and small.tensor("0.1.weight").requires_grad
    assert list(small.state_dict()) == list(graph.state_dict())
    assert small.tensor("0.1.running_mean").shape == (4,)


class Normalised(nn.Module):
    """Statistics over the channels: written small directly, since zeros would count."""

    def __init__(self, norm):
        super().__init__()
        self.conv, self.norm, self.last = conv(3, norm.weight.shape[0]), norm, nn.Linear(norm.weight.shape[0], 5)

    def forward(self, x):
        x = self.conv(x)
        if isinstance(self.norm, nn.LayerNorm):
            return self.last(self.norm(x.permute(0, 2, 3, 1)))
        return self.last(self.norm(x).permute(0, 2, 3, 1))


def narrowed(model: Normalised, norm, keep: list[int]) -> Normalised:
    small = Normalised(norm).eval()
    with torch.no_grad():
        for name in ("conv.weight", "conv.bias", "norm.weight", "norm.bias"):
            small.get_parameter(name).copy_(model.get_parameter(name)[keep])
        small.last.weight.copy_(model.last.weight[:, keep])
        small.last.bias.copy_(model.last.bias)
    return small


def test_layer_norm_counts_the_channels_that_stay():
    model = randomised(Normalised(nn.LayerNorm(6)))
    graph = capture(model, torch.randn(2, 3, 8, 8))
    small = remove(graph, channels(graph), {0: [1, 4]})
    x = torch.randn(2, 3, 8, 8)
    assert close(small(x), narrowed(model, nn.LayerNorm(4), [0, 2, 3, 5])(x), 1e-5)


def test_large_groups_of_a_group_norm_lose_one_index_each():
    model = randomised(Normalised(nn.GroupNorm(2, 12)))
    graph = capture(model, torch.randn(2, 3, 8, 8))
    found = channels(graph)
    assert [g.units for g in found.groups] == [6]
    small = remove(graph, found, {0: [0, 5]})
    x = torch.randn(2, 3, 8, 8)
    keep = [1, 2, 3, 4, 7, 8, 9, 10]
    assert close(small(x), narrowed(model, nn.GroupNorm(2, 8), keep)(x), 1e-5)


def test_a_mean_over_channels_sees_fewer_of_them():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(3, 6)

        def forward(self, x):
            return self.conv(x).mean(1)

    model = Mean().eval()
    graph = capture(model, torch.randn(2, 3, 8, 8))
    small = remove(graph, channels(graph), {0: [0, 3]})
    x = torch.randn(2, 3, 8, 8)
    assert close(small(x), model.conv(x)[:, [1, 2, 4, 5]].mean(1), 1e-5)


# Random networks


class Random(nn.Module):
    """A chain of steps drawn by hypothesis, each of which may look back."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList()
        widths = [4]
        self.stem = block(3, 4)
        for kind, number in steps:
            width = widths[-1]
            if kind == "conv":
                self.layers.append(block(width, number, 3 if number % 2 else 1))
                widths.append(number)
            elif kind == "depthwise":
                self.layers.append(block(width, width, groups=width))
                widths.append(width)
            elif kind == "add":
                self.layers.append(conv(width, width, bias=False))
                widths.append(width)
            elif kind == "cat":
                self.layers.append(conv(width, number))
                widths.append(width + number)
            elif kind == "chunk":
                self.layers.append(conv(width - width // 2, number))
                widths.append(width // 2 + number)
            elif kind == "pad":
                self.layers.append(nn.Identity())
                widths.append(width + number)
            elif kind == "gate":
                self.layers.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1), nn.Sigmoid()))
                widths.append(width)
            elif kind == "grouped":
                self.layers.append(nn.Sequential(nn.Conv2d(width, 4, 1), nn.Conv2d(4, 8, 3, padding=1, groups=2)))
                widths.append(8)
        self.head = Head(widths[-1])

    def forward(self, x):
        x = self.stem(x)
        for (kind, number), layer in zip(self.steps, self.layers, strict=True):
            if kind == "add":
                x = F.relu(layer(x)) + x
            elif kind == "cat":
                x = torch.cat([layer(x), x], 1)
            elif kind == "chunk":
                cut = x.shape[1] // 2
                x = torch.cat([x[:, :cut], layer(x[:, cut:])], 1)
            elif kind == "pad":
                x = F.pad(x, (0, 0, 0, 0, number // 2, number - number // 2))
            elif kind == "gate":
                x = x * layer(x)
            else:
                x = layer(x)
        return self.head(x)


KINDS = ["conv", "depthwise", "add", "cat", "chunk", "pad", "gate", "grouped"]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(2, 7)), min_size=1, max_size=5), st.integers(0, 99))
def test_random_networks_lose_their_zeroed_units(steps, seed):
    torch.manual_seed(seed)
    graph = capture(randomised(Random(steps)), torch.randn(2, 3, 6, 6))
    found = channels(graph)
    gone = {i: some_units(g, seed + i) for i, g in enumerate(found.groups) if g.units > 1}
    expected = graph
    for position, units in gone.items():
        expected = without(expected, found.groups[position], units)
    x = torch.randn(2, 3, 6, 6)
    assert close(remove(graph, found, gone)(x), expected(x), 1e-4)


def test_a_part_of_a_group_that_is_read_alone_keeps_its_strongest_unit():
    class Parts(nn.Module):
        """Of eight channels of one group, the first two go another way."""

        def __init__(self):
            super().__init__()
            self.make, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.make(x)
            return self.head(torch.cat([x[:, :2].sigmoid(), x[:, 2:]], 1))

    model = Parts()
    graph = capture(model, torch.randn(2, 3, 4, 4))
    found = channels(graph)
    assert [group.units for group in found.groups] == [8]
    small = remove(graph, found, {0: np.array([1, 0, 5])})  # those that matter least come first
    kept = [0, 2, 3, 4, 6, 7]
    assert torch.equal(small.tensor("make.weight"), model.make.weight[kept])
    assert torch.equal(small.tensor("head.weight"), model.head.weight[:, kept])
    assert small(torch.randn(3, 3, 4, 4)).shape == (3, 2, 4, 4)
