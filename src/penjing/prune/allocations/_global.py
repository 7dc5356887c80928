"""One ranking of all units."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from penjing.prune.allocations._registry import Place, Rounding, allocations, rounded


@allocations.register(source="Molchanov et al., Pruning ConvNets for Resource Efficient Inference, 2017")
def global_(scores: Sequence[Tensor], amount: float, rounding: Rounding, places: Sequence[Place] = ()) -> list[int]:
    """The lowest share of all units together, after each group's scores were divided by their root mean square.

    The best unit of each group stays, so that the amount is exact; equal scores go from all groups alike.
    """
    relative = [s / s.square().mean().sqrt().clamp_min(torch.finfo(s.dtype).tiny) for s in scores]
    return without_lowest(relative, amount, rounding)


def without_lowest(scores: Sequence[Tensor], amount: float, rounding: Rounding) -> list[int]:
    """Returns how many units each group keeps if the lowest share of all goes, but for the best of each group."""
    ranks = [s.argsort(stable=True).argsort() for s in scores]
    best = torch.cat([rank == len(rank) - 1 for rank in ranks])
    value = torch.cat(list(scores)).masked_fill(best, math.inf)
    order = torch.cat([rank / len(rank) for rank in ranks]).argsort(stable=True)
    order = order[value[order].argsort(stable=True)]
    gone = torch.zeros(len(order), dtype=torch.bool)
    gone[order[: min(math.floor(amount * len(order) + 0.5), len(order) - len(scores))]] = True
    parts = gone.split([len(s) for s in scores])
    return [rounded(len(part) - int(part.sum()), len(part), rounding) for part in parts]
