"""A Swin transformer whose padding and masks are computed from the image that comes, so that it takes any size."""

import torch
import torch.nn.functional as F
from torch import nn


class WindowAttention(nn.Module):
    """Attention inside windows, with a bias for each pair's relative position."""

    def __init__(self, width, heads, window):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.1)
        place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = place[:, :, None] - place[:, None] + window - 1
        self.register_buffer("places", apart[0] * (2 * window - 1) + apart[1])

    def forward(self, x, mask):
        """x: (windows of all images, places, width); mask: (windows of an image, places, places), added to the scores."""
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        scores = scores + self.table[self.places.view(-1)].view(n, n, -1).permute(2, 0, 1)
        if mask is not None:
            windows = mask.shape[0]
            scores = scores.view(b // windows, windows, self.heads, n, n) + mask[:, None]
            scores = scores.view(-1, self.heads, n, n)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


def cut(x, window):
    """(batch, H, W, width) to (batch · windows, places, width)."""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, c)


def joined(x, window, h, w):
    """The way back from `cut`."""
    x = x.view(-1, h // window, w // window, window, window, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, x.shape[-1])


class Block(nn.Module):
    """Windows, shifted in every second block, then an MLP."""

    def __init__(self, width, heads, window, shift):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def mask(self, h, w, device):
        """Forbids attention between places that only the shift brought together."""

        def regions(size):
            place = torch.arange(size, device=device)
            return (place >= size - self.window).long() + (place >= size - self.shift).long()

        region = (3 * regions(h)[:, None] + regions(w))[None, :, :, None]
        region = cut(region, self.window).squeeze(-1)
        return (region[:, :, None] != region[:, None]).float() * -100.0

    def forward(self, x):
        _, h, w, _ = x.shape
        y, mask = self.norm1(x), None
        if self.shift:
            y, mask = torch.roll(y, (-self.shift, -self.shift), (1, 2)), self.mask(h, w, x.device)
        y = joined(self.attention(cut(y, self.window), mask), self.window, h, w)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class Merging(nn.Module):
    """Every four neighbours become one place of twice the width."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x):
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduce(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    """Images (batch, 3, H, W) to class scores; images are padded to whole windows of the last stage."""

    def __init__(self, width=24, heads=(4, 8), depths=(2, 1), window=4, patch=2, classes=5):
        super().__init__()
        self.multiple = patch * window * 2 ** (len(heads) - 1)
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.norm = nn.LayerNorm(width)
        layers: list[nn.Module] = []
        for stage, (count, depth) in enumerate(zip(heads, depths, strict=True)):
            layers += [Merging(width * 2 ** (stage - 1))] if stage else []
            layers += [Block(width * 2**stage, count, window, i % 2 * window // 2) for i in range(depth)]
        self.layers = nn.Sequential(*layers)
        last = width * 2 ** (len(heads) - 1)
        self.last, self.head = nn.LayerNorm(last), nn.Linear(last, classes)

    def forward(self, image):
        high, wide = ((size + self.multiple - 1) // self.multiple * self.multiple for size in image.shape[2:])
        image = F.pad(image, (0, wide - image.shape[3], 0, high - image.shape[2]))
        x = self.norm(self.patch(image).permute(0, 2, 3, 1))
        return self.head(self.last(self.layers(x)).mean((1, 2)))
