"""What has the shape of channels but stands for something: classes of a softmax, bands, bins. They stay unless named."""

import pytest
import torch
import torch.nn.functional as F
from oracle import check
from torch import nn

import penjing as pj
from penjing.graph import capture, channels
from penjing.graph.channels.explain import explain


class Distances(nn.Module):
    """A detector's distribution head: each side's distance is expected over bins, which a constant holds."""

    def __init__(self, levels=1, bins=8, read="convolution"):
        super().__init__()
        self.stem, self.read = nn.Conv2d(3, 6, 3, padding=1), read
        self.sides = nn.ModuleList(nn.Conv2d(6, 4 * bins, 1) for _ in range(levels))
        self.register_buffer("distances", torch.arange(bins, dtype=torch.float32))

    def forward(self, x):
        x, found = self.stem(x).relu(), []
        for level, side in enumerate(self.sides):
            y = side(F.max_pool2d(x, 2**level)).flatten(2)
            shares = y.view(y.shape[0], 4, -1, y.shape[-1]).softmax(2)
            if self.read == "convolution":
                found.append(F.conv2d(shares.transpose(1, 2), self.distances[None, :, None, None])[:, 0])
            else:
                found.append(shares.transpose(2, 3) @ self.distances)
        return torch.cat(found, 2)


class Bands(nn.Module):
    """Spectra by a convolution with constant waves, then bands by a constant matrix, then a small network."""

    def __init__(self, bands=6):
        super().__init__()
        self.register_buffer("waves", torch.randn(8, 1, 5))
        self.register_buffer("filters", torch.rand(8, bands))
        self.one, self.two = nn.Conv1d(bands, 6, 3), nn.Conv1d(6, 4, 1)

    def forward(self, x):
        spectra = F.conv1d(x, self.waves, stride=2).square()
        return self.two(self.one((spectra.transpose(1, 2) @ self.filters).log1p().transpose(1, 2)).relu())


class Memory(nn.Module):
    """Attention to a learned memory: the softmax's classes are its places."""

    def __init__(self):
        super().__init__()
        self.one, self.keys, self.values, self.two = (nn.Linear(*s) for s in ((5, 6), (6, 8), (8, 6), (6, 3)))

    def forward(self, x):
        return self.two(self.values(self.keys(self.one(x).relu()).softmax(-1)))


class Experts(nn.Module):
    """A mixture of linear layers, weighed by a softmax over them."""

    def __init__(self):
        super().__init__()
        self.one, self.gate, self.two = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(6, 3)
        self.experts = nn.Parameter(torch.randn(4, 6, 6))

    def forward(self, x):
        x = self.one(x).relu()
        return self.two(torch.einsum("bk,kio,bi->bo", self.gate(x).softmax(1), self.experts, x).relu())


class Normalised(nn.Module):
    """Logits less the logarithm of their exponentials' sum, in the middle of a network."""

    def __init__(self):
        super().__init__()
        self.one, self.logits, self.two = nn.Linear(5, 6), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = self.logits(self.one(x).relu())
        return self.two(y - y.logsumexp(1, keepdim=True))


class ReadByConstant(nn.Module):
    """Scores that a constant alone adds up, without a softmax before it."""

    def __init__(self):
        super().__init__()
        self.one, self.scores = nn.Linear(5, 6), nn.Linear(6, 8)
        self.register_buffer("bins", torch.arange(8.0))

    def forward(self, x):
        return self.scores(self.one(x).relu()).sigmoid() @ self.bins


IMAGES, ROWS = torch.randn(2, 3, 8, 8), torch.randn(2, 5)
KEPT = {
    "bins that a convolution reads": (Distances(), IMAGES, "sides.0", "softmax"),
    "bins that a product reads": (Distances(read="product"), IMAGES, "sides.0", "softmax"),
    "bins of several levels": (Distances(levels=2), IMAGES, "sides.0", "softmax"),
    "places of a memory": (Memory(), ROWS, "keys", "softmax"),
    "experts": (Experts(), ROWS, "gate", "softmax"),
    "normalised logits": (Normalised(), ROWS, "logits", "logsumexp"),
    "scores that a constant reads": (ReadByConstant(), ROWS, "scores", "a constant alone reads them"),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_stands_for_something_stays_unless_its_module_is_named(name):
    model, x, layer, why = KEPT[name]
    graph = capture(model.eval(), x)
    names = [group.name for group in channels(graph).groups]
    assert layer not in names and {"one", "stem"} & set(names)
    stay = next(s for s in explain(graph, channels(graph)).stays if s.tensor == f"{layer}.weight" and s.axis == 0)
    assert why in stay.why
    assert layer in [group.name for group in channels(graph, include=["*", layer]).groups]
    assert layer not in [group.name for group in channels(graph, include=["*"]).groups]


def test_the_bands_of_a_filterbank_stay():
    graph = capture(Bands().eval(), torch.randn(2, 1, 40))
    assert [group.name for group in channels(graph).groups] == ["one"]
    small = pj.prune(graph, 0.5)
    assert small.tensor("filters").shape == (8, 6) and small.tensor("one.weight").shape == (3, 6, 3)
    stay = next(s for s in explain(graph, channels(graph)).stays if s.tensor == "one.weight" and s.axis == 1)
    assert stay.why == "a constant makes them"


class Selective(nn.Module):
    """Selective kernels (Li et al. 2019): a softmax over branches, for each channel."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.branches = nn.ModuleList(nn.Conv2d(6, width, 3, padding=d, dilation=d) for d in (1, 2))
        self.squeeze, self.select, self.head = nn.Linear(width, 4), nn.Linear(4, 2 * width), nn.Conv2d(width, 3, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        y = torch.stack([branch(x) for branch in self.branches], 1)
        weights = self.select(self.squeeze(y.sum(1).mean((2, 3))).relu())
        return self.head((y * weights.view(x.shape[0], 2, -1, 1, 1).softmax(1)).sum(1))


class Gated(nn.Module):
    """Channels weighed by a softmax over them: what is weighed has another maker."""

    def __init__(self):
        super().__init__()
        self.stem, self.gate, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(x * self.gate(x.mean((2, 3))).softmax(1)[:, :, None, None])


class AmongChannels(nn.Module):
    """Cross-covariance attention (El-Nouby et al. 2021): a softmax over the features of the keys."""

    def __init__(self, packed):
        super().__init__()
        self.embed, self.qkv, self.proj, self.packed = nn.Linear(5, 8), nn.Linear(8, 24), nn.Linear(8, 3), packed

    def forward(self, x):
        y = self.qkv(self.embed(x))
        if self.packed:
            q, k, v = y.reshape(*y.shape[:2], 3, 2, 4).permute(2, 0, 3, 4, 1).unbind(0)
        else:
            q, k, v = (z.unflatten(-1, (2, 4)).permute(0, 2, 3, 1) for z in y.chunk(3, -1))
        return self.proj(((q @ k.transpose(-2, -1)).softmax(-1) @ v).permute(0, 3, 1, 2).flatten(2))


@pytest.mark.parametrize(
    ("model", "x", "units"),
    [
        (Selective(), IMAGES, [4, 6, 8]),
        (Gated(), IMAGES, [8]),
        (AmongChannels(packed=True), torch.randn(2, 7, 5), [4, 8]),
        (AmongChannels(packed=False), torch.randn(2, 7, 5), [4, 4, 8]),
        (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.LogSoftmax(-1)), ROWS, [6]),
    ],
    ids=[
        "selective kernels",
        "gated channels",
        "packed attention among channels",
        "attention among channels",
        "classes",
    ],
)
def test_channels_beside_a_softmax_still_go(model, x, units):
    torch.manual_seed(0)
    _, found, _ = check(model, x, exact=False)
    assert sorted(group.units for group in found.groups) == units
