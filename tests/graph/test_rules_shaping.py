"""Views that cut channels into heads and features, and those that merge them with the batch."""

import pytest
import torch
import torch.nn.functional as F
from oracle import check, share_left
from torch import nn

from penjing.graph import capture, channels, propagation


class Merged(nn.Module):
    """Attention whose heads are merged with the batch, as PyTorch's own; queries and (packed) keys and values apart."""

    def __init__(self, width=16, heads=4, pack="unbind", explicit=False):
        super().__init__()
        self.heads, self.pack, self.explicit = heads, pack, explicit
        self.embed, self.q, self.kv = nn.Linear(5, width), nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.o, self.head = nn.Linear(width, width), nn.Linear(width, 3)

    def taken_apart(self, x):
        b, n, c = x.shape
        if self.pack == "unbind":
            return self.kv(x).reshape(b, n, 2, c).unbind(2)
        if self.pack == "split":
            return self.kv(x).split(c, -1)
        if self.pack == "select":
            both = self.kv(x).reshape(b, n, 2, c).permute(2, 0, 1, 3)
            return both[0], both[1]
        return (part.squeeze(2) for part in self.kv(x).view(b, n, 2, c).chunk(2, 2))

    def forward(self, x):
        x = self.embed(x)
        b, n, c = x.shape
        parts = (part.transpose(0, 1) for part in (self.q(x), *self.taken_apart(x)))
        q, k, v = (part.reshape(n, b * self.heads, c // self.heads).transpose(0, 1) for part in parts)
        if self.explicit:
            y = torch.bmm(torch.bmm(q * (c // self.heads) ** -0.5, k.transpose(1, 2)).softmax(-1), v)
        else:
            q, k, v = (part.view(b, self.heads, n, -1) for part in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v).reshape(-1, n, c // self.heads)
        return self.head(x + self.o(y.transpose(0, 1).reshape(n, b, c).transpose(0, 1)))


@pytest.mark.parametrize("units", ["auto", "heads", "features"])
@pytest.mark.parametrize("explicit", [True, False])
def test_heads_merged_with_the_batch_go(units, explicit):
    torch.manual_seed(0)
    graph, found, small = check(Merged(explicit=explicit), torch.randn(2, 6, 5), units=units)
    (group,) = [g for g in found.groups if "q.weight" in g.made_by()]
    assert group.units == 4
    assert {entry.tensor for entry in group.entries} >= {"q.weight", "q.bias", "kv.weight", "kv.bias"}
    assert share_left(graph, small) < 0.35


@pytest.mark.parametrize("pack", ["unbind", "select", "chunk", "split"])
@pytest.mark.parametrize("units", ["heads", "features"])
def test_packed_keys_and_values_stay_two(pack, units):
    torch.manual_seed(0)
    _graph, found, small = check(Merged(pack=pack), torch.randn(2, 6, 5), units=units)
    (values,) = [
        g for g in found.groups if "o.weight" in {e.tensor for e in g.entries if e.role == "in"} and g.units == 4
    ]
    assert small.tensor("kv.weight").shape[0] == 16
    # A view that packs both has as many features for either; where they are split, values have features of their own.
    assert ("q.weight" in values.made_by()) == (units == "heads" or pack != "split")


@pytest.mark.parametrize("units", ["heads", "features"])
@pytest.mark.parametrize("mask", [False, True])
def test_pytorchs_own_attention_loses_heads_or_features(units, mask):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Linear(5, 16), nn.Linear(16, 3)
            self.attention = nn.MultiheadAttention(16, 4)

        def forward(self, x):
            x = self.embed(x).transpose(0, 1)
            causal = torch.full((6, 6), -1.0).triu(1) if mask else None
            y, weights = self.attention(x, x, x, need_weights=mask, attn_mask=causal)
            return self.head((x + y).transpose(0, 1)) + (weights.sum() if mask else 0)

    torch.manual_seed(0)
    # Mean attention weights are returned with a mask: fewer heads have another mean.
    graph, found, small = check(Model(), torch.randn(2, 6, 5), units=units, exact=not mask)
    assert "attention.in_proj_weight" in {t for g in found.groups for t in g.made_by()}
    assert share_left(graph, small) < 0.4


def test_patches_merged_with_the_batch_and_channels_come_apart_again():
    """MobileViT's unfolding: channels between the batch and the rows of patches."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.mix, self.last, self.head = (
                nn.Conv2d(3, 8, 1),
                nn.Linear(8, 8),
                nn.Conv2d(8, 6, 1),
                nn.Linear(6, 3),
            )

        def forward(self, x):
            x = self.stem(x)
            b, c, h, w = x.shape
            y = x.reshape(b * c * (h // 2), 2, w // 2, 2).transpose(1, 2).reshape(b, c, h * w // 4, 4)
            y = self.mix(y.transpose(1, 3)).relu().transpose(1, 3)
            y = y.reshape(b * c * (h // 2), w // 2, 2, 2).transpose(1, 2).reshape(b, c, h, w)
            return self.head(self.last(x + y).mean((2, 3)))

    torch.manual_seed(0)
    _, found, _ = check(Model(), torch.randn(2, 3, 8, 8))
    assert sorted(g.units for g in found.groups) == [6, 8]


def test_what_is_merged_with_the_batch_is_cut_and_joined_along_other_axes():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.extra, self.head = nn.Linear(5, 48), nn.Parameter(torch.randn(4)), nn.Linear(16, 3)

        def forward(self, x):
            b, n, _ = x.shape
            y = self.qkv(x).view(b, n, 4, 12).transpose(1, 2).reshape(b * 4, n, 12)
            q, k, v = y.chunk(3, -1)
            k, v = torch.cat([k, k[:, :2]], 1), torch.cat([v, v[:, :2] * v.select(1, 3)[:, None]], 1)
            y = torch.stack([q @ k.transpose(1, 2) @ v, q], 1).unbind(1)[0]
            return self.head(y.view(b, 4, n, 4).transpose(1, 2).reshape(b, n, 16))

    torch.manual_seed(0)
    graph, found, small = check(Model(), torch.randn(2, 6, 5), units="heads")
    assert [g.units for g in found.groups] == [4]
    assert small.tensor("qkv.weight").shape[0] == graph.tensor("qkv.weight").shape[0] // 2


def test_a_merged_axis_that_is_cut_itself_stays():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = nn.Linear(5, 8), nn.Linear(8, 16), nn.Linear(4, 3)

        def forward(self, x):
            y = self.two(self.one(x).relu()).view(-1, 4)
            y = y if self.features_may_go else y.cumprod(-1)
            return self.head(torch.cat([y[:1], y[1:]]))

    torch.manual_seed(0)
    for Model.features_may_go in (True, False):
        for units in ("heads", "features"):
            _, found, _ = check(Model(), torch.randn(2, 5), units=units)
            assert [g.name for g in found.groups] == (["one", "two"] if Model.features_may_go else ["one"])


@pytest.mark.parametrize("lengths", [(-1, 6), (6, -1), (6, 6)])
def test_the_size_of_heads_merged_with_the_batch_follows(lengths):
    """Where another size is left to be found out, and where the merged one is."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.head = nn.Linear(5, 16), nn.Linear(16, 3)

        def forward(self, x):
            b, n, _ = x.shape
            y = self.one(x).transpose(0, 1).reshape(lengths[0], b * 4, 4).transpose(0, 1).relu()
            y = y.reshape(b, 4, lengths[1], 4).permute(0, 2, 1, 3)
            return self.head(y.reshape(b, n, -1))

    torch.manual_seed(0)
    for units in ("heads", "features"):
        _, found, small = check(Model(), torch.randn(2, 6, 5), units=units)
        assert [g.units for g in found.groups] == [4]
        assert propagation.confirms(small)


def test_an_op_that_knows_no_tiled_axis_pins_it():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 6)
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            x = self.two(self.one(x).relu())
            return self.head(x.reshape(-1).flip(0).reshape(-1, 6))

    torch.manual_seed(0)
    _, found, _ = check(Model(), torch.randn(2, 5))
    assert [g.name for g in found.groups] == ["one"]


def test_an_axis_of_one_index_that_is_squeezed_keeps_it():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.gates, self.head = nn.Linear(5, 8), nn.Linear(8, 2), nn.Linear(8, 3)

        def forward(self, x):
            x = self.one(x)
            first, second = (gate.squeeze(-1) for gate in self.gates(x).chunk(2, -1))
            return self.head(x) * first[:, None] + second[:, None]

    torch.manual_seed(0)
    _, found, _ = check(Model(), torch.randn(2, 5))
    assert [g.name for g in found.groups] == ["one"]


def test_axes_of_one_index_are_flattened_away():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    _, found, _ = check(nn.Sequential(*layers), torch.randn(2, 3, 8, 8))
    assert [g.units for g in found.groups] == [8]


class Sines(nn.Module):
    """Positions as sines and cosines of running numbers, made in the forward pass, as DETR does."""

    def __init__(self, width=16):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(5, width), nn.Linear(width, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.one(x)
        frequencies = 100 ** (2 * (torch.arange(x.shape[-1] // 2) // 2) / x.shape[-1])
        angles = torch.ones_like(x.sum(-1)).cumsum(1)[..., None] / frequencies
        angles = torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], -1).flatten(2)
        return self.head(self.two(x + torch.cat([angles, angles + 1], -1)).relu())


def test_features_whose_positions_are_counted_in_the_forward_pass_stay():
    """No index of the user's own model could say which frequencies are left."""
    torch.manual_seed(0)
    _, found, _ = check(Sines(), torch.randn(2, 6, 5))
    assert [g.name for g in found.groups] == ["two"]
    assert {p.op for p in found.pinned if p.tensor == "one.weight" and p.axis == 0} == {"aten.arange.default"}


@pytest.mark.parametrize(("start", "end", "units"), [(0, None, 4), (1, None, 4), (0, 6, None), (2, None, None)])
def test_one_of_every_two_channels_goes_with_its_neighbour(start, end, units):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.zero, self.one, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(len(range(8)[start:end:2]), 3)

        def forward(self, x):
            return self.head(self.one(self.zero(x))[:, start:end:2])

    torch.manual_seed(0)
    _, found, _ = check(Model(), torch.randn(2, 5))
    assert {g.name: g.units for g in found.groups} == {"zero": 8} | ({"one": units} if units else {})


def test_what_is_reshaped_like_another_tensor_shrinks_with_it():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.map, self.flat = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(3, 8 * 16)
            self.one, self.two = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            maps = self.map(x)
            return self.one(self.flat(x.mean((2, 3))).reshape_as(maps)) * self.two(maps)

    torch.manual_seed(0)
    _, found, _ = check(Model(), torch.randn(2, 3, 4, 4))
    (group,) = found.groups
    assert set(group.made_by()) == {"map.weight", "flat.weight"}


@pytest.mark.parametrize("squeeze", [torch.squeeze, lambda x: x.squeeze(2).squeeze(2).squeeze(1)])
def test_an_axis_of_which_one_channel_is_left_is_not_squeezed_away(squeeze):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 2, 3, padding=1), nn.Linear(2, 4)

        def forward(self, x):
            return self.two(squeeze(self.one(x).mean((2, 3), keepdim=True)))

    torch.manual_seed(0)
    _, _, small = check(Model(), torch.randn(2, 3, 4, 4))
    assert small.tensor("one.weight").shape[0] == 1


def test_channels_that_are_cut_at_a_free_size_stay():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(5, 16)

        def forward(self, x):
            return self.one(x.mean(1))[:, : x.shape[1]].sum(1, keepdim=True)

    graph = capture(Model().eval(), torch.randn(2, 6, 5), dynamic={"x": (0, 1)})
    found = channels(graph)
    assert not found.groups
    assert {p.op for p in found.pinned if p.axis == 0} == {"aten.slice.Tensor"}
