"""A Llama-style decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, a causal mask, tied to nothing."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotary(length, size, device):
    """Cosines and sines of each position, (length, size)."""
    frequencies = 10000 ** -(torch.arange(0, size, 2, device=device).float() / size)
    angles = torch.outer(torch.arange(length, device=device).float(), frequencies)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotated(x, cos, sin):
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def repeated(x, times):
    """Each key head once for each query head that it serves."""
    b, heads, n, size = x.shape
    return x[:, :, None].expand(b, heads, times, n, size).reshape(b, heads * times, n, size)


class Attention(nn.Module):
    """Grouped queries, with the causal mask and the softmax written out."""

    def __init__(self, width, heads, key_heads):
        super().__init__()
        self.heads, self.key_heads, self.size = heads, key_heads, width // heads
        self.q_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k_proj, self.v_proj = (nn.Linear(width, key_heads * self.size, bias=False) for _ in range(2))

    def forward(self, x, cos, sin, mask):
        b, n, _ = x.shape
        q = self.q_proj(x).view(b, n, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(x).view(b, n, self.key_heads, self.size).transpose(1, 2)
        v = self.v_proj(x).view(b, n, self.key_heads, self.size).transpose(1, 2)
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        k, v = (repeated(t, self.heads // self.key_heads) for t in (k, v))
        scores = (q @ k.transpose(2, 3) / math.sqrt(self.size)).masked_fill(~mask, float("-inf"))
        x = scores.softmax(-1) @ v
        return self.o_proj(x.transpose(1, 2).reshape(b, n, self.heads * self.size))


class Block(nn.Module):
    def __init__(self, width, heads, key_heads, inner):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, heads, key_heads)
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x, cos, sin, mask):
        x = x + self.attention(self.norm1(x), cos, sin, mask)
        y = self.norm2(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


class Llama(nn.Module):
    """Token ids (batch, length) to logits (batch, length, vocabulary)."""

    def __init__(self, vocabulary=32, width=64, heads=8, key_heads=4, inner=96, layers=2):
        super().__init__()
        self.size = width // heads
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, key_heads, inner) for _ in range(layers))
        self.norm, self.head = RMSNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        n = tokens.shape[1]
        cos, sin = rotary(n, self.size, tokens.device)
        mask = torch.ones(n, n, dtype=torch.bool, device=tokens.device).tril()
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return self.head(self.norm(x))
