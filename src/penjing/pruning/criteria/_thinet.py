"""Which channels change the outputs of the next layers least when they go."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import Compensated, criteria
from penjing.pruning.reconstruction import readers


@criteria.register(
    source="Luo et al., ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression, 2017",
    needs={"data"},
    level="unit",
)
def thinet(evidence: Evidence) -> Compensated:
    """Greedy reconstruction: the next unit to go changes the next layers' outputs least; then least squares.

    A unit's score is its place in that order. The next layers' remaining weights are then fitted to their old outputs.

    The paper draws ten positions of each image, chooses layer by layer with tuning in between, and fits one factor per
    channel. Here all groups are chosen at once, from all positions of the calibration batches, and all remaining weights are
    fitted.
    """
    found = readers(evidence)
    return Compensated([order(found.contributions(group)) for group in evidence.groups], units=found.refitted)


def order(contributions: Tensor) -> Tensor:
    """Returns each unit's place, from 0, in the order in which ‖Σ of removed contributions‖² grows least at each step."""
    place = torch.zeros(len(contributions))
    gone = torch.zeros(len(contributions), dtype=torch.bool)
    with_gone = torch.zeros_like(contributions[0])
    for step in range(len(contributions)):
        growth = (contributions.diagonal() + 2 * with_gone).masked_fill(gone, torch.inf)
        unit = int(growth.argmin())
        place[unit], gone[unit] = step, True
        with_gone = with_gone + contributions[unit]
    return place
