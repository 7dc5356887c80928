import numpy as np
import pytest
import torch
import torch.nn.functional as F
from surgery_networks import Head, block, conv, networks, randomised
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture, channels, remove
from penjing.graph.capture.verify import close


@pytest.fixture(scope="module")
def chain():
    torch.manual_seed(0)
    model = randomised(nn.Sequential(block(3, 4), block(4, 6), Head(6)))
    return capture(model, torch.randn(2, 3, 8, 8))


def test_groups_are_named_after_the_layer_that_makes_them_in_order_of_execution(chain):
    found = channels(chain)
    assert [(g.name, g.units) for g in found.groups] == [("0.0", 4), ("1.0", 6)]
    assert found.groups[0].made_by() == ("0.0.weight",)


def test_entries_say_where_and_in_which_role_a_unit_stands(chain):
    entries = {(e.tensor, e.axis): e for e in channels(chain).groups[0].entries}
    assert {key: e.role for key, e in entries.items()} == {
        ("0.0.weight", 0): "out",
        ("0.1.weight", 0): "scale",
        ("0.1.bias", 0): "shift",
        ("0.1.running_mean", 0): "statistic",
        ("0.1.running_var", 0): "statistic",
        ("1.0.weight", 1): "in",
    }
    assert all(np.array_equal(e.indices, np.arange(4)[:, None]) for e in entries.values())


def test_a_unit_behind_a_flatten_reads_a_run_of_features():
    model = nn.Sequential(conv(3, 4), nn.Flatten(), nn.Linear(4 * 9, 2))
    (group,) = channels(capture(model, torch.randn(2, 3, 3, 3))).groups
    (entry,) = [e for e in group.entries if e.tensor == "2.weight" and e.axis == 1]
    assert np.array_equal(entry.indices, np.arange(36).reshape(4, 9))
    assert group.params == 27 + 1 + 9 * 2


def test_inputs_and_outputs_are_pinned_with_their_reason(chain):
    pinned = {(p.tensor, p.axis): p for p in channels(chain).pinned}
    assert pinned["0.0.weight", 1].indices == 3 and pinned["0.0.weight", 1].op == "input"
    assert pinned["2.linear.weight", 0].op == "output" and pinned["2.linear.weight", 0].indices == 5
    assert ("1.0.weight", 0) not in pinned


def test_an_op_without_a_rule_pins_what_it_touches_and_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = block(3, 4), block(4, 6), Head(6)

        def forward(self, x):
            x = self.one(x)
            x = torch.cummax(x, 1).values
            return self.head(self.two(x))

    graph = capture(randomised(Odd()), torch.randn(2, 3, 8, 8))
    found = channels(graph)
    assert [g.name for g in found.groups] == ["two.0"]
    pinned = {(p.tensor, p.axis): p for p in found.pinned}
    for place in (("one.0.weight", 0), ("two.0.weight", 1)):
        assert pinned[place].op == "aten.cummax.default" and "torch.cummax(x, 1)" in pinned[place].source
    x = torch.randn(2, 3, 8, 8)
    small = remove(graph, found, {0: [1, 2]})
    zeroed = remove(graph, found, {})
    with torch.no_grad():
        for entry in found.groups[0].entries:
            zeroed.tensor(entry.tensor).index_fill_(entry.axis, torch.tensor([1, 2]), 0.0)
    assert close(small(x), zeroed(x), 1e-4)


@pytest.mark.parametrize(
    "touch",
    [
        lambda x: x.topk(2, 1)[0],
        lambda x: torch.sort(x, 1)[0],
        lambda x: x.roll(1, 1),
        lambda x: x[:, ::2],
        lambda x: x[:, [0, 2, 1]],
        lambda x: x.cumprod(1),
        lambda x: x.repeat(1, 2, 1, 1),
        lambda x: torch.einsum("nchw,cd->ndhw", x, torch.ones(4, 4)),
        lambda x: x.unbind(1)[0],
        lambda x: x[:, 1] * x[:, 2],
        lambda x: F.unfold(x, 2),
        lambda x: x.max(1)[1].float(),
        lambda x: x.view(x.shape[0], 2, -1),
        lambda x: x.movedim(1, 3).flatten(2),
        lambda x: F.normalize(x, dim=1),
        lambda x: x.softmax(1),
        lambda x: x + torch.arange(4.0).view(1, 4, 1, 1),
        lambda x: torch.stack([x, x + 1], 1),
        lambda x: F.avg_pool2d(x, 2).mean((2, 3)),
        lambda x: x.reshape(-1, 8),
        lambda x: F.pad(x, (0, 0, 0, 0, 1, 1), mode="constant", value=1.0),
        lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
        lambda x: x.split([1, 3], 1)[1],
        lambda x: torch.where(x > 0, x, x.mean(1, keepdim=True)),
        lambda x: x.flip(1),
        lambda x: x.transpose(1, 3),
        lambda x: x[:, -1:],
        lambda x: F.cosine_similarity(x[:, :2], x[:, 2:], 1),
        lambda x: x.norm(dim=1),
        lambda x: x.view(x.shape[0], 1, 4, -1).expand(-1, 3, -1, -1),
    ],
)
def test_whatever_reads_channels_a_smaller_graph_still_runs(touch):
    """An op may cost prunability, never the model."""

    class Touched(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = block(3, 6, 1), nn.Conv2d(6, 4, 1)

        def forward(self, x):
            return touch(self.two(self.one(x)))

    graph = capture(randomised(Touched()), torch.randn(2, 3, 4, 4))
    found = channels(graph)
    assert "one.0" in [g.name for g in found.groups]
    x = torch.randn(3, 3, 4, 4)
    for position, group in enumerate(found.groups):
        if group.units > 1:
            small = remove(graph, found, {position: [0]})
            outputs = small(x)
            zeroed = remove(graph, found, {})
            with torch.no_grad():
                for entry in group.entries:
                    indices = torch.from_numpy(np.ascontiguousarray(entry.indices[0]))
                    zeroed.tensor(entry.tensor).index_fill_(entry.axis, indices, 0.0)
            assert group.name == "two" or close(outputs, zeroed(x), 1e-4)  # "two" may feed a mean or a softmax


def test_excluded_layers_keep_their_channels(chain):
    assert [g.name for g in channels(chain, exclude=["0"]).groups] == ["1.0"]
    assert [g.name for g in channels(chain, exclude=["1.*"]).groups] == ["0.0"]
    assert channels(chain, exclude=["*"]).groups == ()
    pinned = {(p.tensor, p.axis): p for p in channels(chain, exclude=["0.0"]).pinned}
    assert pinned["0.0.weight", 0].op == "exclude=0.0"


def test_only_included_layers_lose_channels(chain):
    assert [g.name for g in channels(chain, include=["0"]).groups] == ["0.0"]
    assert [g.name for g in channels(chain, include=["0", "1.0"], exclude=["1"]).groups] == ["0.0"]


def test_a_pattern_that_matches_nothing_suggests_the_nearest_path(chain):
    with pytest.raises(PenjingError, match=r"Unknown module pattern '2\.linea'.*Did you mean '2\.linear'"):
        channels(chain, exclude=["2.linea"])
    with pytest.raises(PenjingError, match="Unknown module pattern"):
        channels(chain, include=["layer9.*"])


def test_labelling_is_repeatable():
    graph = capture(randomised(networks()["dense"]), torch.randn(2, 3, 8, 8))
    first, second = channels(graph), channels(graph)
    for a, b in zip(first.groups, second.groups, strict=True):
        assert a.name == b.name and np.array_equal(a.classes, b.classes)
        assert [(e.tensor, e.axis, e.role) for e in a.entries] == [(e.tensor, e.axis, e.role) for e in b.entries]


def test_a_network_without_layers_has_no_groups():
    assert channels(capture(nn.ReLU(), torch.randn(2, 3))).groups == ()
