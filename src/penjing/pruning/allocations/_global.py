"""One ranking over the units of all groups: the lowest go, wherever they are."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from penjing.pruning.allocations._registry import Rounding, Scored, allocations, rounded


@allocations.register(source="Molchanov et al., Pruning ConvNets for Resource Efficient Inference, 2017")
def global_(scores: Sequence[Tensor], amount: float, rounding: Rounding, places: Sequence[Scored] = ()) -> list[int]:
    """One ranking of all units, each group's scores divided by their root mean square; the lowest go.

    The best unit of each group isn't ranked and stays, so that the amount is exact. Among equal scores, units go from all
    groups alike. The paper divides by the Euclidean norm, as "global:l2" does, which makes the scores of large groups
    small; the root mean square doesn't depend on a group's size.
    """
    return without_lowest([_over(s, lambda s: s.square().mean().sqrt()) for s in scores], amount, rounding)


@allocations.register(
    source="Molchanov et al., Pruning ConvNets for Resource Efficient Inference, 2017", name="global:l2"
)
def by_norm(scores: Sequence[Tensor], amount: float, rounding: Rounding, places: Sequence[Scored] = ()) -> list[int]:
    """As "global", but scores are divided by the Euclidean norm of the group's scores: larger groups lose more units."""
    return without_lowest([_over(s, lambda s: s.square().sum().sqrt()) for s in scores], amount, rounding)


@allocations.register(source="Fang et al., DepGraph: Towards Any Structural Pruning, 2023 (code)", name="global:mean")
def by_mean(scores: Sequence[Tensor], amount: float, rounding: Rounding, places: Sequence[Scored] = ()) -> list[int]:
    """As "global", but scores are divided by the mean magnitude of the group's scores."""
    return without_lowest([_over(s, lambda s: s.abs().mean()) for s in scores], amount, rounding)


@allocations.register(source="Fang et al., DepGraph: Towards Any Structural Pruning, 2023 (code)", name="global:max")
def by_largest(scores: Sequence[Tensor], amount: float, rounding: Rounding, places: Sequence[Scored] = ()) -> list[int]:
    """As "global", but scores are divided by the largest magnitude of the group's scores."""
    return without_lowest([_over(s, lambda s: s.abs().max()) for s in scores], amount, rounding)


@allocations.register(
    source="Molchanov et al., Importance Estimation for Neural Network Pruning, 2019; for magnitudes: Frankle & Carbin, "
    "The Lottery Ticket Hypothesis, 2019",
    name="global:none",
)
def as_they_are(
    scores: Sequence[Tensor], amount: float, rounding: Rounding, places: Sequence[Scored] = ()
) -> list[int]:
    """As "global", but scores aren't divided: for criteria whose scores estimate the loss, as those of "taylor" do."""
    return without_lowest(scores, amount, rounding)


def _over(scores: Tensor, scale: Callable[[Tensor], Tensor]) -> Tensor:
    scores = scores.double()  # single precision can't hold the squares of scores that are squared gradients themselves
    return scores / scale(scores).clamp_min(torch.finfo(scores.dtype).tiny)


def without_lowest(scores: Sequence[Tensor], amount: float, rounding: Rounding) -> list[int]:
    """Returns how many units each group keeps if the lowest `amount` of all units goes and the best of each group stays."""
    ranks = [s.argsort(stable=True).argsort() for s in scores]
    best = torch.cat([rank == len(rank) - 1 for rank in ranks])
    value = torch.cat(list(scores)).masked_fill(best, math.inf)
    order = torch.cat([rank / len(rank) for rank in ranks]).argsort(stable=True)
    order = order[value[order].argsort(stable=True)]
    gone = torch.zeros(len(order), dtype=torch.bool)
    gone[order[: min(math.floor(amount * len(order) + 0.5), len(order) - len(scores))]] = True
    parts = gone.split([len(s) for s in scores])
    return [rounded(len(part) - int(part.sum()), len(part), rounding) for part in parts]
