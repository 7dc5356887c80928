"""Transformers: fused projections, separate ones, grouped-query heads with rotary positions, shifted windows."""

import torch
import torch.nn.functional as F
from torch import nn


class Fused(nn.Module):
    """One projection for queries, keys and values, cut as vision transformers do; relative positions as a bias."""

    def __init__(self, width=16, heads=4, length=6, fused_op=True):
        super().__init__()
        self.heads, self.scale, self.fused_op = heads, (width // heads) ** -0.5, fused_op
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn(2 * length - 1, heads))
        place = torch.arange(length)
        self.register_buffer("places", place[:, None] - place[None] + length - 1)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.places.view(-1)].view(n, n, -1).permute(2, 0, 1).unsqueeze(0)
        if self.fused_op:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            x = ((q * self.scale) @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class Encoder(nn.Module):
    """Tokens, a class token, positions, and one block without norms, so that zeros are an oracle."""

    def __init__(self, fused_op=True):
        super().__init__()
        self.embed, self.cls = nn.Linear(5, 16), nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 6, 16))
        self.attention = Fused(fused_op=fused_op)
        self.up, self.down, self.gamma = nn.Linear(16, 24), nn.Linear(24, 16), nn.Parameter(torch.rand(16))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.positions
        x = x + self.attention(x)
        x = x + self.gamma * self.down(F.gelu(self.up(x)))
        return self.head(x[:, 0])


class GroupedQuery(nn.Module):
    """Four query heads on two key heads, rotary positions, a causal mask."""

    def __init__(self, width=16, heads=4, key_heads=2, enable_gqa=False):
        super().__init__()
        self.size, self.enable_gqa, self.ratio = width // heads, enable_gqa, heads // key_heads
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, key_heads * self.size, bias=False) for _ in range(2))
        self.register_buffer("frequencies", 100 ** -(torch.arange(0, self.size, 2) / self.size), persistent=False)

    def rotated(self, x):
        angles = torch.arange(x.shape[2], device=x.device)[:, None] * self.frequencies
        angles = torch.cat([angles, angles], -1)
        first, second = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (layer(x).view(b, n, -1, self.size).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = self.rotated(q), self.rotated(k)
        if not self.enable_gqa:
            k, v = (
                t[:, :, None].expand(b, t.shape[1], self.ratio, n, self.size).reshape(b, -1, n, self.size)
                for t in (k, v)
            )
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.enable_gqa)
        return self.o(x.transpose(1, 2).reshape(b, n, -1))


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class Decoder(nn.Module):
    """A Llama-style decoder: token ids in, logits out."""

    def __init__(self, vocabulary=20, width=16, layers=2, enable_gqa=False, norm=True):
        super().__init__()
        make = RMSNorm if norm else lambda width: nn.Identity()
        self.embed = nn.Embedding(vocabulary, width)
        self.norms = nn.ModuleList(make(width) for _ in range(2 * layers))
        self.attentions = nn.ModuleList(GroupedQuery(width, enable_gqa=enable_gqa) for _ in range(layers))
        self.gates, self.ups = (nn.ModuleList(nn.Linear(width, 24) for _ in range(layers)) for _ in range(2))
        self.downs = nn.ModuleList(nn.Linear(24, width) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens)
        for i, attention in enumerate(self.attentions):
            x = x + attention(self.norms[2 * i](x))
            y = self.norms[2 * i + 1](x)
            x = x + self.downs[i](F.silu(self.gates[i](y)) * self.ups[i](y))
        return self.head(x)


class Windows(nn.Module):
    """A Swin block: windows that are rolled, attention inside, patches merged after it."""

    def __init__(self, width=16, window=2, heads=2):
        super().__init__()
        self.window = window
        self.stem, self.attention = nn.Conv2d(3, width, 2, 2), Fused(width, heads, window * window)
        self.merge, self.head = nn.Linear(4 * width, 2 * width, bias=False), nn.Linear(2 * width, 3)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        s = self.window
        y = torch.roll(x, (-1, -1), (1, 2))
        y = y.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        y = self.attention(y)
        y = y.view(b, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = x + torch.roll(y, (1, 1), (1, 2))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.merge(x).mean((1, 2)))


class Packed(nn.Module):
    """PyTorch's own attention: one packed weight, cut by hand inside."""

    def __init__(self):
        super().__init__()
        self.embed, self.attention, self.head = (
            nn.Linear(5, 16),
            nn.MultiheadAttention(16, 4, batch_first=True),
            nn.Linear(16, 3),
        )

    def forward(self, x):
        x = self.embed(x)
        return self.head(x + self.attention(x, x, x, need_weights=False)[0])
