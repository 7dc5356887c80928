"""Networks drawn at random from ops that move, cut and repeat channels: what goes is the same as what is zero."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import check
from torch import nn

SIDE = 4


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def image(x):
    return x.transpose(1, 2).unflatten(2, (SIDE, SIDE))


class Attention(nn.Module):
    """Without norms and biases of positions; `way` says how queries, keys and values are cut and merged."""

    def __init__(self, width, way):
        super().__init__()
        self.way, self.heads = way, 2
        self.entry, self.qkv, self.out = nn.Linear(width, 8), nn.Linear(8, 24), nn.Linear(8, width)

    def forward(self, x):
        y = self.entry(tokens(x))
        b, n, c = y.shape
        if self.way == "windows":
            y = y.roll(1, 1).view(b, n // 4, 4, c).reshape(-1, 4, c)
        m = y.shape[1]
        if self.way == "packed heads":
            q, k, v = self.qkv(y).view(-1, m, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        elif self.way == "packed last":
            q, k, v = self.qkv(y).view(-1, m, self.heads, c // self.heads, 3).permute(4, 0, 2, 1, 3).unbind(0)
        elif self.way == "merged":
            q, k, v = (
                part.transpose(0, 1).reshape(m, -1, c // self.heads).transpose(0, 1)
                for part in self.qkv(y).view(b, m, 3, c).unbind(2)
            )
        else:
            q, k, v = (
                part.view(-1, m, self.heads, c // self.heads).transpose(1, 2) for part in self.qkv(y).chunk(3, -1)
            )
        if self.way in ("packed last", "merged"):
            y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        y = y.transpose(0, 1) if self.way == "merged" else y.transpose(1, 2).reshape(-1, m, c)
        y = y.reshape(m, b, c).transpose(0, 1) if self.way == "merged" else y
        return x + image(self.out(y.reshape(b, n, c)))


class Layer(nn.Module):
    """One step on `(batch, width, SIDE, SIDE)`; `self.width` is what goes out."""

    def __init__(self, kind, width, number):
        super().__init__()
        self.kind, self.width = kind, width
        if kind == "lstm":
            self.inner = nn.LSTM(width, number, bidirectional=number % 2 == 0, batch_first=True)
            self.width = number * (1 + (number % 2 == 0))
        elif kind == "pixels":
            self.inner, self.width = nn.Conv2d(4 * width, 4 * number, 1), number
        elif kind == "unfold":
            self.inner, self.width = nn.Conv1d(4 * width, 4 * number, 1), number
        elif kind in ("repeat", "interleave"):
            self.inner = nn.Conv2d(2 * width, width, 1)
        elif kind == "pad":
            self.width = width + number
        elif kind == "pick":
            self.register_buffer("order", torch.randperm(SIDE * SIDE))
        elif kind == "select":
            self.inner = nn.Conv2d(width, width, 1)

    def forward(self, x):
        if self.kind == "roll":
            return torch.roll(x, (1, 2), (2, 3))
        if self.kind == "lstm":
            return image(self.inner(tokens(x))[0])
        if self.kind == "pixels":
            return F.pixel_shuffle(self.inner(F.pixel_unshuffle(x, 2)).relu(), 2)
        if self.kind == "unfold":
            return F.fold(self.inner(F.unfold(x, 2, stride=2)), (SIDE, SIDE), 2, stride=2)
        if self.kind == "repeat":
            return self.inner(x.repeat(1, 2, 1, 1)).relu()
        if self.kind == "interleave":
            return self.inner(x.repeat_interleave(2, 1)) + x
        if self.kind == "pad":
            return F.pad(x, (0, 0, 0, 0, 1, self.width - x.shape[1] - 1))
        if self.kind == "pick":
            y = tokens(x)[:, self.order]
            places = self.order.view(1, -1, 1).expand(x.shape[0], -1, y.shape[2])
            return x + image(torch.gather(y, 1, places))
        y = self.inner(x)
        return torch.cat([y[:, :1] * y[:, -1:], x[:, 1:]], 1)


class Random(nn.Module):
    def __init__(self, steps):
        super().__init__()
        self.stem, width, layers = nn.Conv2d(3, 6, 1), 6, []
        for kind, number in steps:
            layers.append(Attention(width, kind) if kind in WAYS else Layer(kind, width, number))
            width = getattr(layers[-1], "width", width)
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.layers(self.stem(x)).relu().mean((2, 3)))


WAYS = ["packed heads", "packed last", "merged", "chunks", "windows"]
KINDS = ["roll", "lstm", "pixels", "unfold", "repeat", "interleave", "pad", "pick", "select"]


@pytest.mark.parametrize("units", ["auto", "heads", "features"])
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(2, 5)), min_size=1, max_size=3),
    st.sampled_from(WAYS),
    st.integers(0, 3),
)
def test_random_graphs_lose_their_zeroed_units(units, steps, way, place):
    torch.manual_seed(place)
    check(Random([*steps[:place], (way, 0), *steps[place:]]), torch.randn(2, 3, SIDE, SIDE), units=units)
