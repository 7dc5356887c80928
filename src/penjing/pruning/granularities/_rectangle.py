"""Smaller kernels, of a size that the granularity's name says."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from penjing.pruning.granularities._pattern import pattern, shrunk
from penjing.pruning.granularities._registry import granularities


def _read(name: str) -> dict[str, tuple[int, ...]] | None:
    found = re.fullmatch(r"rectangle:([1-9]\d*(?:x[1-9]\d*){0,2})", name)
    return {"size": tuple(map(int, found[1].split("x")))} if found else None


def _best(saliency: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], size: tuple[int, ...]) -> list[Tensor]:
    """Returns which positions stay: those of the rectangle with most saliency; among equal rectangles, the first."""
    stays = []
    for values, (_, _, *window) in zip(saliency, shapes, strict=True):
        sums = values.double().reshape(window)
        for axis, length in enumerate(size):
            sums = sums.unfold(axis, length, 1).sum(-1)
        corner = torch.unravel_index(sums.argmax(), sums.shape)
        kept = torch.zeros(window, dtype=torch.bool)
        kept[tuple(slice(int(at), int(at) + length) for at, length in zip(corner, size, strict=True))] = True
        stays.append(kept.flatten())
    return stays


@granularities.register(
    source="Anwar et al., Structured Pruning of Deep Convolutional Neural Networks, 2017",
    removes="weights",
    kernels=True,
    read=_read,
    stays=_best,
    shrink=shrunk,
    example="rectangle:1x3",
)
def rectangle(weight: Tensor, size: tuple[int, ...]) -> Tensor | None:
    """Rectangles ("rectangle:1x3"): each kernel keeps a rectangle of that size, the best one for the whole layer."""
    window = tuple(weight.shape[2:])
    fits = len(window) == len(size) and all(part <= whole for part, whole in zip(size, window, strict=True))
    return pattern(weight) if fits else None
