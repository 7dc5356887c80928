"""Axes of free size have no label per index, and numbers that only nodes stand for may be any argument of an op."""

import tracemalloc
import warnings

import pytest
import torch
import torch.nn.functional as F
from oracle import check
from surgery_networks import Head, conv
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture, channels, load, remove
from penjing.graph.capture.verify import close
from penjing.graph.channels.rules import RULES

aten = torch.ops.aten


class Sequence(nn.Module):
    """Two linear layers over steps, and between them something that handles steps of free number, of two inputs."""

    def __init__(self, between):
        super().__init__()
        self.between, self.one, self.two = between, nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x, y):
        return self.two(self.between(self.one(x).relu(), y))


JOINED_WITH = torch.randn(1, 4, 8)
SIZES = {
    "fixed steps behind free ones": lambda x, y: torch.cat([x, JOINED_WITH.expand(x.shape[0], -1, -1)], 1),
    "fixed steps before free ones": lambda x, y: torch.cat([JOINED_WITH.expand(x.shape[0], -1, -1), x], 1),
    "as many fewer as another input has": lambda x, y: x[:, : x.shape[1] - y.shape[1]],
    "as many as are left of groups of four": lambda x, y: F.pad(x, (0, 0, 0, x.shape[1] % 4)),
    "split where another input ends": lambda x, y: x.split([y.shape[1], x.shape[1] - y.shape[1]], 1)[1],
    "twice the steps, and half of them": lambda x, y: x.repeat(1, 2, 1)[:, : (2 * x.shape[1]) // 2],
    "zeros of another input's length": lambda x, y: torch.cat([x, x.new_zeros(x.shape[0], y.shape[1], 8)], 1),
}


@pytest.mark.parametrize("between", SIZES.values(), ids=SIZES)
def test_features_go_past_axes_of_free_size_and_no_index_of_those_is_labelled(between):
    torch.manual_seed(0)
    inputs = torch.randn(2, 9, 5), torch.randn(2, 4, 5)
    graph = capture(Sequence(between).eval(), inputs, dynamic={"x": (1,), "y": (1,)})
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a rule that fails warns
        found = channels(graph)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23  # bytes
    assert [(group.name, group.units) for group in found.groups] == [("one", 8)]
    small = remove(graph, found, {0: range(4)})
    other = torch.randn(3, 7, 5), torch.randn(3, 6, 5)
    assert small(*other).shape == graph(*other).shape


class PerSample(nn.Module):
    """Kernels that are mixed anew for each sample: as many groups as samples."""

    def __init__(self, transposed, channels=6, wide=8):
        super().__init__()
        self.transposed, self.gate = transposed, nn.Linear(channels, 3)
        shape = (channels, wide) if transposed else (wide, channels)
        self.kernels = nn.Parameter(torch.randn(3, *shape, 3, 3) * 0.2)

    def forward(self, x):
        n, c, h, w = x.shape
        mixed = torch.einsum("nk,koihw->noihw", self.gate(x.mean((2, 3))).sigmoid(), self.kernels)
        convolve = F.conv_transpose2d if self.transposed else F.conv2d
        y = convolve(x.reshape(1, n * c, h, w), mixed.flatten(0, 1), padding=1, groups=n)
        return y.view(n, -1, h, w)


@pytest.mark.parametrize("transposed", [False, True])
def test_channels_run_through_convolutions_with_kernels_of_each_sample(transposed):
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 6), nn.ReLU(), PerSample(transposed), nn.ReLU(), conv(8, 4), Head(4))
    _, found, _ = check(model, torch.randn(2, 3, 8, 8))
    assert sorted(group.units for group in found.groups) == [3, 4, 6, 8]  # the kernels that are mixed, and channels


FAILING = {
    aten.conv2d.default: conv(4, 4),
    aten.group_norm.default: nn.GroupNorm(2, 4),
    aten.flatten.using_ints: nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (8, 8))),
    aten.split.Tensor: type("Split", (nn.Module,), {"forward": lambda self, x: x.split(2, 1)[0].repeat(1, 2, 1, 1)})(),
}


@pytest.mark.parametrize("op", FAILING, ids=str)
def test_a_graph_is_cut_although_the_rule_of_one_op_fails(op, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 6), nn.ReLU(), nn.Conv2d(6, 4, 1, bias=False), FAILING[op], nn.Linear(8, 8)).eval()
    graph = capture(model, torch.randn(2, 3, 8, 8))
    rule, failed = RULES[op], [node for node in graph.program.graph.nodes if node.target is op][-1]

    def failing(labelling, *arguments):
        if labelling.node is failed:
            raise TypeError("unsupported operand")
        return rule(labelling, *arguments)

    monkeypatch.setitem(RULES, op, failing)
    with pytest.warns(UserWarning, match="channels all stay"):
        found = channels(graph)
    (group,) = [group for group in found.groups if group.name == "0"]
    small = remove(graph, found, {found.groups.index(group): [0, 1]})
    x = torch.randn(3, 3, 8, 8)
    assert small(x).shape == graph(x).shape and failed in found.unlabelled
    assert small.tensor("0.weight").shape[0] == 4


def test_a_pick_and_a_norm_whose_numbers_come_from_sizes_keep_what_they_read():
    class Picking(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x):
            y = self.one(x).relu()
            return self.two(y) + y[:, :, x.shape[1] % 8, None]

    graph = capture(Picking().eval(), torch.randn(2, 9, 5), dynamic={"x": (1,)})
    found = channels(graph)
    x = torch.randn(3, 11, 5)
    assert found.groups == () and close(remove(graph, found, {})(x), graph(x), 1e-6)


@pytest.mark.parametrize("cached", [False, True], ids=["keys and values", "a cache of both"])
def test_as_many_keys_as_values_are_asked_for_where_attention_would_read_beyond_the_end(tmp_path, cached):
    """PyTorch's kernel doesn't compare the two numbers."""

    class Attention(nn.Module):
        def forward(self, x, keys, values):
            if cached:
                keys, values = torch.cat([keys, x], 1), torch.cat([values, x], 1)
            return nn.functional.scaled_dot_product_attention(x[:, None], keys[:, None], values[:, None])

    inputs = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    graph = capture(Attention(), inputs, dynamic={"x": (1,), "keys": (1,), "values": (1,)})
    graph.save(tmp_path / "attention.penjing")
    loaded = load(tmp_path / "attention.penjing")
    longer = inputs[0], torch.randn(2, 9, 4), torch.randn(2, 9, 4)
    torch.testing.assert_close(loaded(*longer), Attention()(*longer))
    with pytest.raises(PenjingError, match="must have the same size"):
        loaded(inputs[0], inputs[1], longer[2])
