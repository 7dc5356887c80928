"""Small networks of the kinds that models are made of, with the norms that they come with."""

import torch
import torch.nn.functional as F
from torch import nn


class Pooled(nn.Module):
    """A body of any number of spatial axes, its mean, and a linear classifier."""

    def __init__(self, *body, width=8):
        super().__init__()
        self.body, self.head = nn.Sequential(*body), nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.body(x).flatten(2).mean(2))


class Bottleneck(nn.Module):
    """A ResNet's block with a projected shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        inner = outputs // 2
        self.one, self.two, self.three = (
            nn.Conv2d(inputs, inner, 1),
            nn.Conv2d(inner, inner, 3, stride, 1),
            nn.Conv2d(inner, outputs, 1),
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (inner, inner, outputs))
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.norms[0](self.one(x)))
        y = F.relu(self.norms[1](self.two(y)))
        return F.relu(self.norms[2](self.three(y)) + self.shortcut(x))


class Ghost(nn.Module):
    """Half of the channels are made cheaply of the other half, and what is too much is cut off."""

    def __init__(self, inputs, outputs):
        super().__init__()
        half = -(-outputs // 2)
        self.outputs = outputs
        self.primary = nn.Sequential(nn.Conv2d(inputs, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.cheap = nn.Sequential(nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half))

    def forward(self, x):
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)[:, : self.outputs]


class Mixer(nn.Module):
    """Patches mixed over places, then over channels."""

    def __init__(self, width=8, places=16):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 2, 2)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.places = nn.Sequential(nn.Linear(places, 12), nn.GELU(), nn.Linear(12, places))
        self.channels = nn.Sequential(nn.Linear(width, 20), nn.GELU(), nn.Linear(20, width))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.places(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norms[1](x))
        return self.head(self.norms[2](x).mean(1))


class Self(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    """A transformer's block: norm, attention, norm, MLP."""

    def __init__(self, width=16, heads=4, causal=False):
        super().__init__()
        self.norm1, self.norm2, self.attention = nn.LayerNorm(width), nn.LayerNorm(width), Self(width, heads, causal)
        self.mlp = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches, a class token, positions, one block."""

    def __init__(self, width=16):
        super().__init__()
        self.patch, self.cls = nn.Conv2d(3, width, 4, 4), nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 5, width))
        self.block, self.norm, self.head = Block(width), nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.block(x))[:, 0])


class GPT(nn.Module):
    """Tokens and positions, a causal block, and the embedding once more as the classifier."""

    def __init__(self, vocabulary=20, width=16):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(10, width)
        self.block, self.norm = Block(width, causal=True), nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.block(self.tokens(tokens) + self.positions(places))))


class Grouped(nn.Module):
    """A Llama's block: RMSNorm, four query heads on two key heads, SwiGLU."""

    def __init__(self, vocabulary=20, width=16):
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Embedding(vocabulary, width), nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = nn.Linear(width, 8, bias=False), nn.Linear(width, 8, bias=False)
        self.gate, self.up, self.down = nn.Linear(width, 24), nn.Linear(width, 24), nn.Linear(24, width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens):
        x = self.embed(tokens)
        b, n, _ = x.shape
        y = self.norm1(x)
        q, k, v = (layer(y).view(b, n, -1, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, n, -1))
        y = self.norm2(x)
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))


class Encoder(nn.Module):
    """PyTorch's own encoder layer, after and before its norms, between an embedding and a classifier."""

    def __init__(self, norm_first):
        super().__init__()
        self.embed = nn.Linear(5, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=norm_first)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.layer(self.embed(x)).mean(1))


class Standardised(nn.Conv2d):
    """A convolution whose weight is standardised anew in every call (Qiao et al. 2019)."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class WeightStandardised(nn.Module):
    def __init__(self, wide=8, narrow=6):
        super().__init__()
        self.one, self.two = Standardised(3, wide, 3, padding=1), Standardised(wide, narrow, 3, padding=1)
        self.head = nn.Linear(narrow, 4)

    def forward(self, x):
        return self.head(F.relu(self.two(F.relu(self.one(x)))).mean((2, 3)))


def conv_norm(conv, norm, inputs, outputs, **options):
    return nn.Sequential(conv(inputs, outputs, 3, padding=1, **options), norm(outputs), nn.ReLU())


def kinds():
    """Name -> (network, inputs)."""
    image, tokens, steps = torch.randn(2, 3, 8, 8), torch.randint(0, 20, (2, 6)), torch.randn(2, 6, 5)
    plain = [conv_norm(nn.Conv2d, nn.BatchNorm2d, 3, 6), nn.MaxPool2d(2), conv_norm(nn.Conv2d, nn.BatchNorm2d, 6, 8)]
    audio = [
        conv_norm(nn.Conv1d, nn.BatchNorm1d, 1, 6, stride=2),
        conv_norm(nn.Conv1d, nn.BatchNorm1d, 6, 6, groups=6),
        conv_norm(nn.Conv1d, nn.InstanceNorm1d, 6, 8, dilation=2),
    ]
    video = [conv_norm(nn.Conv3d, nn.BatchNorm3d, 3, 6), nn.AvgPool3d(2), conv_norm(nn.Conv3d, nn.BatchNorm3d, 6, 8)]
    resnext = [
        conv_norm(nn.Conv2d, nn.BatchNorm2d, 3, 16),
        conv_norm(nn.Conv2d, nn.BatchNorm2d, 16, 16, groups=4),
        conv_norm(nn.Conv2d, nn.BatchNorm2d, 16, 8),
    ]

    def affine(width):
        return nn.InstanceNorm2d(width, affine=True)

    def grouped(width):
        return nn.GroupNorm(2, width)

    return {
        "plain": (Pooled(*plain), image),
        "ResNet": (Pooled(nn.Conv2d(3, 6, 3), Bottleneck(6, 8, 1), Bottleneck(8, 8, 2)), image),
        "ResNeXt": (Pooled(*resnext), image),
        "GhostNet": (Pooled(Ghost(3, 15), nn.ReLU(), Ghost(15, 8)), image),
        "instance norm": (Pooled(*(conv_norm(nn.Conv2d, affine, *n) for n in ((3, 6), (6, 8)))), image),
        "group norm": (Pooled(*(conv_norm(nn.Conv2d, grouped, *n) for n in ((3, 6), (6, 8)))), image),
        "audio": (Pooled(*audio), torch.randn(2, 1, 20)),
        "video": (Pooled(*video), torch.randn(2, 3, 4, 8, 8)),
        "MLP-Mixer": (Mixer(), image),
        "ViT": (ViT(), image),
        "GPT": (GPT(), tokens),
        "Llama": (Grouped(), tokens),
        "encoder, norms first": (Encoder(True), steps),
        "encoder, norms last": (Encoder(False), steps),
    }
