"""The widths worth trying on a runtime: shares of the channels, rounded to what kernels like."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from penjing.graph import Graph, channels
from penjing.prune import allocations
from penjing.prune.allocations import at_least

AMOUNTS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)


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
    multiples: Sequence[int],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    units: str = "auto",
    min_channels: int = 1,
) -> list[Width]:
    """Returns the different widths to try, the original first, then by falling number of units.

    Channel counts that are multiples of what a target's kernels take at once, such as 8 or 16, fill vector registers; others
    are slower than their share of the work, sometimes slower than the next multiple above.

    Args:
        graph: the original.
        multiples: of units, that groups keep: those of the target's capabilities.
        include: patterns of module paths; only these are pruned.
        exclude: patterns of module paths that aren't.
        units: what a unit of attention is; see `prune`.
        min_channels: how many units each group keeps at least.
    """
    groups = channels(graph, include=include, exclude=exclude, units=units).groups
    whole = [group.units for group in groups]
    uniform = allocations["uniform"].function
    found = {tuple(whole): Width(0.0, None, tuple(whole), 1.0)}
    total = sum(group.units * group.params for group in groups)
    for step in multiples:
        for amount in AMOUNTS:
            kept = tuple(uniform([torch.zeros(n) for n in whole], amount, at_least(min_channels, step)))
            share = sum(k * group.params for k, group in zip(kept, groups, strict=True)) / total if total else 1.0
            found.setdefault(kept, Width(amount, step, kept, share))
    return sorted(found.values(), key=lambda width: -width.params)
