"""The widths worth trying on a runtime: shares of the channels, rounded to what kernels like."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from penjing.graph import Graph, channels
from penjing.prune import allocations
from penjing.prune.allocations import at_least

AMOUNTS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
STEPS = (16, 8)


@dataclass(frozen=True)
class Width:
    """One way to thin all groups of channels alike.

    Attributes:
        amount: share of the units to remove, before rounding.
        round_to: multiple of units that each group keeps; None where nothing is removed.
        kept: units that each group keeps.
        params: parameters that stay, about: of groups that touch the same tensor, each counts its own share.
    """

    amount: float
    round_to: int | None
    kept: tuple[int, ...]
    params: float


def widths(
    graph: Graph,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    units: str = "auto",
    min_channels: int = 1,
) -> list[Width]:
    """Returns the different widths to try, the original first, then by falling number of units.

    Channel counts that are multiples of 8 or 16 fill the vector registers of common kernels; others are slower than
    their share of the work, sometimes slower than the next multiple above.
    """
    groups = channels(graph, include=include, exclude=exclude, units=units).groups
    whole = [group.units for group in groups]
    uniform = allocations["uniform"].function
    found = {tuple(whole): Width(0.0, None, tuple(whole), 1.0)}
    total = sum(group.units * group.params for group in groups)
    for step in STEPS:
        for amount in AMOUNTS:
            kept = tuple(uniform([torch.zeros(n) for n in whole], amount, at_least(min_channels, step)))
            share = sum(k * group.params for k, group in zip(kept, groups, strict=True)) / total if total else 1.0
            found.setdefault(kept, Width(amount, step, kept, share))
    return sorted(found.values(), key=lambda width: -width.params)
