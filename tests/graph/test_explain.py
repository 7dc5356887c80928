import math

import pytest
import torch
from branch_networks import VisionTransformer, noisy
from torch import nn

from penjing import zoo
from penjing.graph import capture, channels, remove
from penjing.graph.channels.explain import explain
from penjing.pruning import prune


class Mixed(nn.Module):
    """Convolutions of all kinds, a recurrent layer, positions, an op without a rule, two outputs."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up, self.place = nn.ConvTranspose2d(8, 6, 2, 2), nn.Parameter(torch.randn(1, 6, 1, 1))
        self.lstm, self.rank, self.head = nn.LSTM(6, 7, batch_first=True), nn.Linear(7, 5), nn.Linear(5, 4)
        self.sign = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        x = self.up(torch.relu(self.deep(torch.relu(self.stem(x))))) + self.place
        x, _ = self.lstm(x.flatten(2).transpose(1, 2))
        return {
            "logits": self.head(torch.cummax(self.rank(x.mean(1)), 1).values),
            "all": [x, torch.cummax(self.sign, 0)[0]],
        }


NETWORKS = {
    "resnet20": lambda: capture(zoo.resnet20(), torch.randn(2, 3, 32, 32)),
    "shufflenet": lambda: capture(zoo.shufflenet_v2_cifar(), torch.randn(2, 3, 32, 32)),
    "vision_transformer": lambda: capture(noisy(VisionTransformer()), torch.randn(2, 3, 8, 8)),
    "mixed": lambda: capture(noisy(Mixed()), torch.randn(2, 3, 4, 4)),
}


@pytest.fixture(scope="module")
def graphs():
    return {name: make() for name, make in NETWORKS.items()}


@pytest.fixture(scope="module")
def mixed(graphs):
    return graphs["mixed"], channels(graphs["mixed"])


@pytest.mark.parametrize("name", NETWORKS)
def test_what_one_unit_saves_is_what_surgery_saves(name, graphs):
    graph = graphs[name]
    found = channels(graph)
    before = graph.cost()
    large = [i for i, group in enumerate(found.groups) if group.units > 1]
    savings = explain(graph, found).savings
    assert [saving.group for saving in savings] == list(found.groups)
    for position in (large[0], large[len(large) // 2], large[-1]):
        after = remove(graph, found, {position: [1]}).cost()
        saving = savings[position]
        assert before.params - after.params == saving.params
        assert math.isclose(before.macs - after.macs, saving.macs, abs_tol=1)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_left_at_half_is_what_pruning_leaves(name, graphs):
    graph = graphs[name]
    found = explain(graph, channels(graph))
    half = prune(graph, 0.5).cost()
    assert (found.params_at_half, found.params) == (half.params, graph.cost().params)
    assert math.isclose(found.macs_at_half, half.macs, rel_tol=1e-3)


def test_parameters_that_no_removable_unit_carries_can_t_go(graphs):
    graph = graphs["resnet20"]
    assert explain(graph, channels(graph)).removable == graph.cost().params - 10  # the classifier's biases stay
    assert explain(graph, channels(graph, exclude=["*"])).removable == 0


def test_the_layers_that_shrink_too_are_named(mixed):
    savings = {saving.group.name: saving.shrinks for saving in explain(*mixed).savings}
    assert savings["stem"] == ("deep", "up")
    assert savings["up"] == ("place", "lstm")


def test_what_stays_is_told_in_words_with_the_line_that_needs_it(mixed):
    stays = {stay.what: stay for stay in explain(*mixed).stays}
    assert stays["3 inputs of stem"].why == "the model's input x gives them"
    assert stays["4 outputs of head"].why == "the model's output logits shows them"
    rank = stays["5 outputs of rank"]
    assert rank.why == "cummax: an op that Penjing has no rule for" and rank.op == "aten.cummax.default"
    assert "test_explain.py" in rank.source and "torch.cummax(self.rank" in rank.source
    assert any(stay.tensor == "sign" and "torch.cummax" in stay.source for stay in stays.values())


def test_what_stays_because_of_a_pattern_names_the_pattern(mixed):
    graph, _ = mixed
    stays = explain(graph, channels(graph, exclude=["stem"])).stays
    assert {stay.why for stay in stays if stay.what == "8 outputs of stem"} == {"--exclude stem"}


def test_everything_that_stays_names_an_op_and_a_line_or_an_end_of_the_model(mixed):
    for stay in explain(*mixed).stays:
        assert stay.why and stay.op and (stay.source or stay.op in ("input", "output", "unread"))


def test_parameters_that_nothing_reads_are_named_too():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.aux = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x):
            x = torch.relu(self.one(x))
            return (self.two(x), self.aux(x)) if self.training else self.two(x)

    graph = capture(Auxiliary(), torch.randn(2, 5))
    stays = {stay.tensor: stay for stay in explain(graph, channels(graph)).stays}
    assert (stays["aux.weight"].what, stays["aux.weight"].op) == ("aux", "unread")
    assert stays["aux.weight"].why == "in evaluation nothing reads them"


def test_an_op_of_another_library_that_pins_is_named_itself():
    with torch.library._scoped_library("explained", "DEF") as library:
        library.define("double(Tensor x) -> Tensor")
        library.impl("double", lambda x: x * 2, "CompositeExplicitAutograd")

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 3)

            def forward(self, x):
                return self.two(torch.ops.explained.double(self.one(x)))

        graph = capture(Model(), torch.randn(2, 5))
        stays = {(stay.tensor, stay.axis): stay for stay in explain(graph, channels(graph)).stays}
    stay = stays["one.weight", 0]
    assert stay.op == "explained.double.default"
    assert stay.why == "explained.double.default: an op that Penjing has no rule for"


def test_what_is_tied_to_an_axis_that_stays_names_the_op_that_ties_it():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.map, self.two = (
                nn.Conv2d(3, 8, 3, padding=1),
                nn.Conv2d(3, 4, 3, padding=1),
                nn.Conv2d(12, 3, 1),
            )

        def forward(self, x):
            rows = self.map(x).transpose(1, 2)  # as channels, which a window has passed over
            return self.two(torch.cat([self.one(x), rows], 1))

    graph = capture(Model(), torch.randn(2, 3, 4, 4))
    pins = {(p.tensor, p.axis): p for p in channels(graph).pinned}
    assert pins["two.weight", 1].op == "aten.conv2d.default"
