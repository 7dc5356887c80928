"""Positions of sequences and maps: which of them count, and how a finer resolution becomes a coarser one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from penjing.distillation.comparison import NOTHING
from penjing.errors import PenjingError


def position_weights(counted: Tensor | None, shape: Sequence[int]) -> Tensor | None:
    """Returns how much each position of values `(N, positions...)` counts, from 0 to 1; None where all count alike.

    Where values are coarser than the labels, a position's weight is the share of its area that counts. A sample whose
    positions were all left out doesn't count either.

    Args:
        counted: which positions of the labels count, `(N,)` or `(N, positions...)`; None where all do.
        shape: of the values, (N, positions...).

    Raises:
        PenjingError: the positions are those of another arrangement, such as tokens where the labels have pixels.
    """
    if counted is None:
        return None
    size = tuple(shape[1:])
    if counted.shape == torch.Size(shape):
        return counted.float()
    if len(counted) == shape[0] and (counted.ndim == 1 or not size):
        samples = counted.flatten(1).any(1) if counted.ndim > 1 else counted
        return samples.float().reshape(-1, *(1 for _ in size)).expand(*shape)
    if len(counted) == shape[0] and counted.ndim == len(shape):
        return pooled(counted.float().unsqueeze(1), size).squeeze(1)
    raise PenjingError(
        f"Labels of shape {tuple(counted.shape)} leave some positions out, and nothing says which positions that is of values "
        f"(samples, positions...) of shape {tuple(shape)}. Compare values that have the labels' positions: name them with "
        'taps=, or take a signal of the outputs, such as signal="soft_labels".'
    )


def pooled(values: Tensor, size: Sequence[int]) -> Tensor:
    """Returns values `(N, channels, positions...)` averaged to another number of positions along each of 1 to 3 axes."""
    pools: dict[int, Callable[..., Tensor]]
    pools = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
    return pools[len(size)](values, tuple(size))


def sample_means(values: Tensor, weights: Tensor | None) -> Tensor:
    """Returns one vector per sample, `(N, channels)`: the mean over the positions of `(N, channels, positions...)`.

    Args:
        values: channels first.
        weights: of the positions, `(N, positions...)`; None where all count alike.
    """
    if values.ndim == 2:
        return values
    if weights is None:
        return values.flatten(2).mean(2)
    kept = weights.to(values.dtype).flatten(1).unsqueeze(1)
    return (values.flatten(2) * kept).sum(2) / kept.sum(2).clamp(min=NOTHING)
