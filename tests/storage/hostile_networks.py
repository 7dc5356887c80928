"""Small networks whose files are changed at random: few nodes each, many ops together.

Used by test_hostile_files.py and by benchmarks/file_fuzz.py.
"""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from graph_mutations import Content
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from penjing.graph import Graph, Option, Place, capture
from penjing.graph.straight_through import ops


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.depthwise, self.up = nn.Conv2d(4, 4, 3, stride=2, groups=4), nn.ConvTranspose2d(4, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.depthwise(F.relu(self.norm(self.conv(x)))))


class Pooling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(F.max_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 2), scale_factor=2.0)
        y = F.interpolate(F.avg_pool2d(y, 2), size=(6, 6), mode="bilinear")
        return F.pixel_shuffle(y.roll(1, 2), 2).flatten(1), F.adaptive_avg_pool2d(x, 1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0][:, -1]


class LongShort(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(self.norm(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return F.gelu(self.out(y) + x)


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        scores = torch.matmul(x, x.transpose(1, 2)) / 2.0
        allowed = torch.ones(5, 5, dtype=torch.bool).tril()
        scores = scores.masked_fill(~allowed, -float("inf"))
        return torch.where(allowed, F.softmax(scores, -1), 0.0) @ x


class Quantized(nn.Module):
    """One tensor of each kind and form: pruned and shared, quantised, float, integer, a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.pruned, self.quantized = nn.Linear(8, 12), nn.Linear(12, 6)
        table = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.25, -0.5, 1.0])
        self.pruned.weight.data = table[torch.randint(8, (12, 8))] * (torch.rand(8) > 0.5)
        self.register_buffer("scale", self.quantized.weight.detach().abs().amax(1) / 7)
        self.register_buffer("zero", torch.zeros(6, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        grid = (self.scale, self.zero, 0, -7, 7, torch.int8)
        w = ops.dequantize_per_channel(ops.quantize_per_channel(self.quantized.weight, *grid), *grid)
        y = F.linear(self.pruned(x), w, self.quantized.bias)
        whole = (0.05, 3, -128, 127, torch.int8)
        return ops.dequantize_per_tensor(ops.quantize_per_tensor(y, *whole), *whole)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.bag = nn.Embedding(10, 4, padding_idx=0), nn.Embedding(7, 4)
        self.register_buffer("order", torch.tensor([2, 0, 1, 4, 3]))

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        y = torch.cat([self.table(tokens), self.bag(tokens % 7)], -1)[:, self.order]
        mask = torch.arange(5) < length[:, None]
        return (y * mask[..., None]).sum(1), y.gather(1, tokens[..., None] % 5)


class Sizes(nn.Module):
    """Computes with sizes that are free."""

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        y = x.reshape(batch, time * width // 2, 2) + torch.arange(time * width // 2)[:, None]
        return y.view(batch, time, width).expand(batch, time, width)[:, : time // 2 + 1]


class Elementwise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.clamp(x, -1.0, 2.0).exp().pow(2.0) - F.silu(x) / (x.abs() + 1.0)
        best, where = y.topk(2, dim=-1)
        return y.var(1), best.cumsum(0), where, y.sort(-1)[0].mean((1, 2)), F.one_hot(y.argmax(-1), 6)


class Indexing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor([[0, 1, 2, 1], [2, 2, 0, 3]]))
        self.norm, self.conv = nn.GroupNorm(2, 4), nn.Conv1d(4, 4, 3, dilation=2, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))[:, :, self.index[0]]
        z = torch.einsum("bct,dc->bdt", y, self.conv.weight[:, :, 0])
        picked = torch.index_select(z, 1, self.index[1])
        return picked.repeat(1, 2, 1), torch.stack([y, z], 1).squeeze(0), torch.split(z, [1, 3], 1)[0]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]], dict]] = {
    "convolution": (Convolution, lambda: (torch.randn(2, 2, 7, 7),), {"dynamic": {"x": (2, 3)}}),
    "pooling": (Pooling, lambda: (torch.randn(2, 4, 6, 6),), {}),
    "recurrent": (Recurrent, lambda: (torch.randn(2, 5, 3),), {"dynamic": {"x": (1,)}}),
    "long short-term memory": (LongShort, lambda: (torch.randn(2, 5, 3),), {}),
    "transformer": (Transformer, lambda: (torch.randn(2, 5, 8),), {"dynamic": {"x": (1,)}}),
    "attention": (Attention, lambda: (torch.randn(2, 5, 4),), {}),
    "quantized": (Quantized, lambda: (torch.randn(2, 8),), {}),
    "words": (Words, lambda: (torch.randint(10, (2, 5)), torch.tensor([5, 3])), {}),
    "sizes": (Sizes, lambda: (torch.randn(2, 4, 6),), {"dynamic": {"x": (0, 1)}}),
    "elementwise": (Elementwise, lambda: (torch.randn(2, 4, 6),), {}),
    "indexing": (Indexing, lambda: (torch.randn(2, 4, 6),), {}),
}


@cache
def graph(name: str) -> Graph:
    """Returns one of the networks, captured."""
    torch.manual_seed(0)
    network, inputs, options = NETWORKS[name]
    made = capture(network().eval(), inputs(), **options)
    if name == "quantized":
        made = made.rounded()
        made.masks["pruned.weight"] = (made.tensor("pruned.weight") != 0) | (torch.rand(12, 8) > 0.95)
    made.plan += [Option(Place("group", "conv"), "prune", {"keep": 8})]
    return made


@cache
def files(name: str) -> dict[bool, bytes]:
    """Returns the network's files: the plain one under False, the compact one under True."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {compact: Path(folder) / f"{compact}.penjing" for compact in (False, True)}
        for compact, path in paths.items():
            graph(name).save(path, compact=compact)
        return {compact: path.read_bytes() for compact, path in paths.items()}


@cache
def content(name: str) -> Content:
    """Returns what stands in the network's files. It is shared: take `copy()` to change it."""
    with zipfile.ZipFile(io.BytesIO(files(name)[False])) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    return Content(
        json.loads(members["graph.json"]),
        load_tensors(members["weights.safetensors"]),
        json.loads(members["plan.json"]),
    )
