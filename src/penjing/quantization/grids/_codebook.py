"""Weights that share a few values."""

import torch
from torch import Tensor

from penjing.quantization.grids._registry import GridNumber, Rows, Shared, grids

MOST_ITERATIONS = 1000  # iterations of Lloyd's algorithm, which nearly always ends earlier by itself


@grids.register(
    source="Han et al. 2016, Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and "
    "Huffman Coding, arXiv:1510.00149",
    grains=("tensor", "channel"),
    bits=GridNumber(2, 256, counts="values"),
    integer=False,
)
def codebook(rows: Rows, count: int) -> Shared:
    """Each weight is one of 2 to 256 values shared by its layer, found by k-means: "codebook:16".

    Centroids start evenly spread over the range (the paper's linear initialisation). Where weights were pruned, one centroid
    is 0 and stays 0, also in further training; weights that are nearest to it become 0 too. Training moves the other
    centroids: the gradient of a shared value is the sum of its weights' gradients.
    """
    values, _ = rows.values.double().sort(1)
    centroids = _spread(values[:, 0], values[:, -1], count)
    if rows.zeros:
        nearest = centroids.abs().argmin(1, keepdim=True)
        centroids.scatter_(1, nearest, 0.0)
    centroids = lloyd(values, centroids, hold_zero=rows.zeros)
    if rows.zeros:  # the zero comes first, where training can't reach it
        centroids = centroids.gather(1, (centroids != 0).to(torch.uint8).argsort(dim=1, stable=True))
    table = centroids.float()
    distance, order = table.double().sort(1)
    places = torch.searchsorted((distance[:, 1:] + distance[:, :-1]) / 2, rows.values.double())
    return Shared(order.gather(1, places).to(torch.uint8), table, rows.zeros)


def _spread(low: Tensor, high: Tensor, count: int) -> Tensor:
    """Returns `(rows, count)` evenly spaced values from `low` to `high`."""
    return low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, count, dtype=low.dtype, device=low.device)


def lloyd(values: Tensor, centroids: Tensor, hold_zero: bool) -> Tensor:
    """Runs k-means on the numbers of each row until no centroid moves.

    Clusters of sorted numbers are intervals, so their means come from differences of cumulative sums.

    Args:
        values: `(rows, weights)`, sorted.
        centroids: `(rows, count)` to start from, sorted. A centroid to which no value is nearest stays where it is.
        hold_zero: whether a centroid at 0 stays there.

    Returns:
        `(rows, count)`, sorted.
    """
    sums = torch.nn.functional.pad(values.cumsum(1), (1, 0))
    ends = torch.full_like(centroids[:, :1], values.shape[1], dtype=torch.int64)
    for _ in range(MOST_ITERATIONS):
        middles = ((centroids[:, 1:] + centroids[:, :-1]) / 2).contiguous()
        edges = torch.cat([torch.zeros_like(ends), torch.searchsorted(values, middles, right=True), ends], 1)
        counts = edges.diff(dim=1)
        means = sums.gather(1, edges).diff(dim=1) / counts.clamp_min(1)
        fixed = (counts == 0) | ((centroids == 0) & hold_zero)
        moved = torch.where(fixed, centroids, means)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids
