"""Sets of patterns: each kernel keeps the weights of one of a few patterns."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from penjing.pruning.granularities._registry import granularities


def _read(name: str) -> dict[str, int] | None:
    found = re.fullmatch(r"patterns:([1-9]\d*)x([1-9]\d*)", name)
    return {"count": int(found[1]), "entries": int(found[2])} if found else None


def _best(saliency: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], count: int, entries: int) -> list[Tensor]:
    """Returns which weights each kernel keeps: those of the pattern, in the set for its size, with most of its saliency."""
    by_kernel = [
        values.double().reshape(-1, torch.Size(shape[2:]).numel())
        for values, shape in zip(saliency, shapes, strict=True)
    ]
    windows = [tuple(shape[2:]) for shape in shapes]
    stays: list[Tensor] = [torch.empty(0)] * len(saliency)
    for window in dict.fromkeys(windows):
        layers = [i for i, one in enumerate(windows) if one == window]
        chosen = _most_frequent(torch.cat([by_kernel[i] for i in layers]), window, count, entries)
        for i in layers:
            stays[i] = chosen[(by_kernel[i] @ chosen.double().T).argmax(1)].flatten()
    return stays


def _most_frequent(kernels: Tensor, window: tuple[int, ...], count: int, entries: int) -> Tensor:
    """Returns the patterns, `(at most count, positions)`, that the strongest weights of most kernels form.

    Args:
        kernels: saliency of the kernels' weights, `(kernels, positions)`.
        window: size of the kernels. If it has a centre, every pattern holds the centre.
        count: number of patterns.
        entries: number of weights in each pattern.
    """
    ranked = kernels.clone()
    if all(size % 2 for size in window):
        ranked[:, ranked.shape[1] // 2] = torch.inf
    natural = torch.zeros_like(ranked, dtype=torch.bool)
    natural.scatter_(1, ranked.argsort(dim=1, descending=True, stable=True)[:, :entries], True)
    patterns, times = natural.unique(dim=0, return_counts=True)
    return patterns[times.argsort(descending=True, stable=True)[:count]]


@granularities.register(
    source="Ma et al., PCONV, 2020; Niu et al., PatDNN, 2020",
    removes="weights",
    kernels=True,
    read=_read,
    stays=_best,
    example="patterns:8x4",
)
def patterns(weight: Tensor, count: int, entries: int) -> Tensor | None:
    """Pattern sets ("patterns:8x4"): each kernel keeps the best of 8 patterns of 4 weights; the name is the amount.

    As in PatDNN, the set holds the patterns that are the most frequent among the network's kernels: each kernel's own
    pattern is its centre and the strongest of its other weights. There is one set for each size of kernels. PCONV designs
    its patterns by hand.
    """
    window = weight.shape[2:].numel()
    return weight.reshape(-1, 1) if weight.dim() > 2 and window > entries else None
