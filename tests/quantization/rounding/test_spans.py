"""Where a quantised network is cut into the parts whose rounding is learned together."""

import pytest
import small_networks as nets
import torch
from torch import nn
from torch.nn import functional as F

from penjing.graph import capture
from penjing.quantization import quantize
from penjing.quantization.rounding import blocks, layers

LAYERS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)


class Downsampling(nn.Module):
    """A residual block with a projected shortcut, behind a stem."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(8, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Every layer reads what all before it made: nothing narrow between them."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * index, 4, 3, padding=1) for index in range(9))

    def forward(self, x):
        for conv in self.convs:
            x = torch.cat([x, F.relu(conv(x))], 1)
        return x


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3)
        self.first, self.second = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.first(x), self.second(x)


class Chain(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 1), nn.ReLU()) for a, b in zip((8, *widths), widths, strict=False))
        )

    def forward(self, x):
        return self.layers(x)


def _cut(network, how):
    torch.manual_seed(0)
    graph = capture(network.eval(), torch.randn(2, 8, 8, 8))
    batches = [torch.randn(4, 8, 8, 8)]
    small = quantize(graph, batches)
    return how(small, [node for node in small.program.graph.nodes if node.target in LAYERS])


def _names(spans):
    return [[node.meta["module"] for node in span.layers] for span in spans]


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nets.Residual, [["conv1", "conv2"], ["head"]]),
        (nets.Depthwise, [["widen", "filter", "narrow"], ["head"]]),
        (nets.Fire, [["squeeze"], ["expand1", "expand3"], ["head"]]),
        (Downsampling, [["stem"], ["conv1", "conv2", "shortcut"], ["head"]]),
        (Dense, [[f"convs.{index}"] for index in range(9)]),
        (Heads, [["conv"], ["first"], ["second"]]),
    ],
)
def test_blocks_are_what_comes_together_again_in_one_value(network, expected):
    assert _names(_cut(network(), blocks)) == expected


def test_chains_are_cut_where_they_are_narrow():
    spans = _cut(Chain(16, 4, 16, 16, 4, 16), blocks)
    assert _names(spans) == [
        ["layers.0.0", "layers.1.0"],
        ["layers.2.0", "layers.3.0", "layers.4.0"],
        ["layers.5.0"],
    ]


def test_blocks_end_behind_the_clip_and_before_the_rounding():
    first, _ = _cut(nets.Residual(), blocks)
    assert first.output.target is torch.ops.aten.relu.default
    assert [node.op for node in first.inputs] == ["placeholder"]


def test_every_layer_is_a_part_of_its_own_with_its_clip():
    spans = _cut(nets.Depthwise(), layers)
    assert _names(spans) == [["widen"], ["filter"], ["narrow"], ["head"]]
    assert [span.output.target for span in spans[:3]] == [
        torch.ops.aten.relu6.default,
        torch.ops.aten.hardtanh.default,
        torch.ops.aten.conv2d.default,
    ]
    assert [span.rows for span in spans] == [False, False, False, True]


@pytest.mark.parametrize("how", [blocks, layers])
@pytest.mark.parametrize("network", nets.NETWORKS)
def test_every_layer_is_in_one_part_and_parts_follow_one_another(network, how):
    spans = _cut(network(), how)
    nodes = list(spans[0].output.graph.nodes)
    found = [node for span in spans for node in span.layers]
    assert found == [node for node in nodes if node in found] and len(set(found)) == len(found)
    for span in spans:
        assert not set(span.inputs) & set(span.nodes)
        assert span.output in span.nodes
