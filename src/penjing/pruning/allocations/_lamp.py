"""One ranking of all units, by scores relative to the units of their own layer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.pruning.allocations._global import without_lowest
from penjing.pruning.allocations._registry import Rounding, Scored, allocations


@allocations.register(source="Lee et al., Layer-Adaptive Sparsity for the Magnitude-Based Pruning, 2021")
def lamp(scores: Sequence[Tensor], amount: float, rounding: Rounding, places: Sequence[Scored] = ()) -> list[int]:
    """One ranking of all units by s² / Σ s², where the sum runs over the group's units that aren't weaker; the lowest go.

    The paper defines this for magnitudes of single weights. The best unit of each group scores 1, and stays.
    """
    for position, score in enumerate(scores):
        # A score just below 0 is allowed: it marks units that are gone already where the others score 0.
        if bool((score < -torch.finfo(score.dtype).tiny).any()):
            where = f" of {places[position].name}" if places else ""
            raise PenjingError(
                f"allocation='lamp' needs scores that aren't negative, and some{where} are: use a criterion of "
                "magnitudes, such as 'l1' or 'l2', or another allocation."
            )
    return without_lowest([_relative(score) for score in scores], amount, rounding)


def _relative(score: Tensor) -> Tensor:
    order = score.argsort(stable=True)
    squares = score[order].double().square()
    left = squares.flip(0).cumsum(0).flip(0).clamp_min(torch.finfo(torch.float64).tiny)
    found = torch.empty_like(squares)
    found[order] = squares / left
    return found
