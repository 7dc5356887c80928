import pytest
import torch
import torch.nn.functional as F
from oracle import check, share_left
from surgery_networks import Head, block, conv
from torch import nn


class Through(nn.Module):
    """Channels through a function between two convolutions."""

    def __init__(self, function, wide=8, narrow=8):
        super().__init__()
        self.function, self.first, self.last, self.head = function, conv(3, wide), conv(narrow, 6), Head(6)

    def forward(self, x):
        return self.head(self.last(self.function(self.first(x))))


def through(function, wide=8, narrow=8):
    torch.manual_seed(0)
    return check(Through(function, wide, narrow), torch.randn(2, 3, 8, 8))


def test_windows_become_channels_and_come_back():
    def function(x):
        return F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2)

    _, found, _ = through(function)
    assert sorted(g.units for g in found.groups) == [6, 8]


def test_space_goes_to_depth_and_back():
    for function in (
        lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2),
        lambda x: F.pixel_shuffle(x.view(-1, 8, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(-1, 32, 4, 4), 2),
    ):
        _, found, _ = through(function)
        assert sorted(g.units for g in found.groups) == [6, 8]


def test_resampling_and_grids_keep_channels():
    def function(x):
        grid = F.affine_grid(torch.eye(2, 3).expand(x.shape[0], 2, 3), x.shape, align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        return F.interpolate(F.adaptive_max_pool2d(x, 4), scale_factor=2, mode="bilinear")

    _, found, _ = through(function)
    assert sorted(g.units for g in found.groups) == [6, 8]


@pytest.mark.parametrize(("window", "stride", "names"), [(3, 1, ["mix"]), (1, 2, ["mix"]), (1, 1, ["one", "mix"])])
def test_a_window_over_features_keeps_them_unless_it_sees_one_at_a_time(window, stride, names):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.mix = nn.Linear(5, 8), nn.Conv1d(4, 6, window, stride, window // 2)
            self.head = nn.Linear(8 // stride, 3)

        def forward(self, x):
            return self.head(self.mix(self.one(x)).relu().mean(1))

    _, found, _ = check(Model(), torch.randn(2, 4, 5), exact=False)
    assert [g.name for g in found.groups] == names


def test_computed_weights_make_channels():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True) * 0
            return F.conv2d(x, weight * self.gain.view(-1, 1, 1, 1), self.bias, padding=1)

    torch.manual_seed(0)
    layer = Standardised(3, 8, 3)
    layer.gain = nn.Parameter(torch.rand(8) + 0.5)
    model = nn.Sequential(layer, nn.ReLU(), nn.utils.parametrizations.weight_norm(conv(8, 6)), Head(6))
    graph, found, small = check(model, torch.randn(2, 3, 8, 8), exact=False)
    assert sorted(g.units for g in found.groups) == [6, 8]
    assert "0.weight" in found.groups[0].made_by()
    assert share_left(graph, small) < 0.4


def test_whole_groups_go_where_there_are_many():
    torch.manual_seed(0)
    model = nn.Sequential(block(3, 16), block(16, 16, groups=8), block(16, 4), Head(4))
    _, found, small = check(model, torch.randn(2, 3, 8, 8))
    assert sorted(g.units for g in found.groups) == [4, 8]
    (node,) = [n for n in small.program.graph.nodes if "conv2d" in str(n.target) and n.args[-1] == 4]
    assert node.args[1].meta["val"].shape == (8, 2, 3, 3)


class Unpooled(nn.Module):
    """A SegNet: what was pooled goes back to where its largest values were."""

    def __init__(self, axes, wide=8):
        super().__init__()
        layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.one, self.two, self.head = layer(3, wide, 3, padding=1), layer(wide, wide, 1), layer(wide, 4, 1)
        self.pool, self.unpool = (getattr(F, f"{name}{axes}d") for name in ("max_pool", "max_unpool"))

    def forward(self, x):
        y, places = self.pool(self.one(x).relu(), 2, return_indices=True)
        return self.head(self.unpool(self.two(y).relu(), places, 2))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_channels_run_through_pooling_and_unpooling(axes):
    torch.manual_seed(0)
    _, found, _ = check(Unpooled(axes), torch.randn(2, 3, *[4] * axes), exact=False)
    (group,) = found.groups  # a channel's places are of no use to another
    assert (group.units, group.made_by()) == (8, ("one.weight", "two.weight"))
