"""Networks with residual branches of many kinds, with normal noise in every parameter so that none is an identity."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def noisy(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP, each scaled (LayerScale) and dropped out."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 12), nn.GELU(), nn.Dropout(0.1), nn.Linear(12, width), nn.Dropout(0.1)
        )
        self.gamma1, self.gamma2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        inner = self.norm1(x)
        x = x + self.gamma1 * self.attention(inner, inner, inner, attn_mask=mask, need_weights=False)[0]
        return self.mlp(self.norm2(x)).mul(self.gamma2) + x


class VisionTransformer(nn.Module):
    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.embed, self.place = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 4, 8))
        self.blocks = nn.ModuleList(TransformerBlock() for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class PostNorm(nn.Module):
    """As BERT: the norm stands behind the sum; a mask enters the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.output, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        weights = (self.query(x) @ x.transpose(1, 2) + mask[:, None]).softmax(-1)
        return self.norm(self.output(weights @ x) + x)


class Parallel(nn.Module):
    """Two branches of the same value, as where attention and MLP work side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.one(x.relu()) + self.two(x.tanh())


class Restoration(nn.Module):
    """A long connection around the whole body, as in super-resolution, and short ones in it; the input minus noise."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(blocks))
        self.last = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        start = inner = self.head(x)
        for layer in self.body:
            inner = torch.sub(inner, layer(inner.relu()))
        return self.tail(start + self.last(inner))


class Context(nn.Module):
    """One value for all places is added, through `addcmul`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.gain = nn.Conv2d(3, 6, 1), nn.Linear(6, 6), nn.Parameter(torch.ones(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.addcmul(x, self.gain, self.squeeze(x.mean((2, 3)))[:, :, None, None], value=0.5)


class Shared(nn.Module):
    """One layer used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Linear(5, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = x + self.layer(x).relu()
        return x


class Projected(nn.Module):
    """Sums without an identity: a projected shortcut, paths side by side, positions, an activation written out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.place = nn.Conv2d(3, 6, 1), nn.Embedding(8, 6)
        self.shortcut, self.one, self.two = nn.Conv2d(6, 8, 1, 2), nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)
        self.wide, self.narrow = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.place(torch.ones_like(x[0, 0, 0], dtype=torch.long).cumsum(0) - 1).T[:, :, None]
        x = self.shortcut(x) + self.two(F.relu(self.one(x)))
        x = x + 0.044715 * x.pow(3)
        return self.wide(x) + self.narrow(x)
