"""Prunes every place as far as costs the same loss, by measured sensitivity curves."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.pruning.allocations._global import without_lowest
from penjing.pruning.allocations._registry import Rounding, Scored, allocations

STEPS = 8  # points of a place's curve: it is measured with 1/8, 2/8, … of the units removed, and with all but one


@allocations.register(
    source="Han et al., Learning both Weights and Connections, 2015; Li et al., Pruning Filters for Efficient ConvNets, "
    "2017 (sensitivity of layers)",
    needs={"data", "labels"},
)
def sensitivity(
    scores: Sequence[Tensor],
    amount: float,
    rounding: Rounding,
    places: Sequence[Scored] = (),
    damage: Callable[[Sequence[Sequence[int]]], list[list[float]]] | None = None,
) -> list[int]:
    """Amounts at which each place, pruned alone, costs the same loss on calibration data, by measured curves.

    Each place is pruned alone, by one to seven eighths of its units and by all but one, the weakest first. Between these
    points a curve is a straight line; where the loss falls, the curve stays flat. Among all amounts with the same total,
    these have the smallest largest damage. The papers read the amounts off such curves by eye. The curves don't show how
    places add to one another's damage.
    """
    if damage is None:
        raise PenjingError(
            "allocation='sensitivity' compares groups of channels or layers, and there is only one place here."
        )
    counts = [marks(len(score)) for score in scores]
    predicted = []
    for score, at, found in zip(scores, counts, damage(counts), strict=True):
        curve = np.maximum.accumulate([0.0, *found])
        along = np.interp(np.arange(1, len(score) + 1), [0, *at], curve)
        predicted.append(torch.from_numpy(along)[score.argsort(stable=True).argsort()])
    return without_lowest(predicted, amount, rounding)


def marks(units: int) -> list[int]:
    """Returns the numbers of removed units at which a place's curve is measured."""
    return sorted(({round(units * step / STEPS) for step in range(1, STEPS)} | {units - 1}) - {0, units})
