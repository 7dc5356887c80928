"""How much attention a trained attention module gives to each channel."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.evidence.feature_maps import GroupValue, sites
from penjing.graph.taps import Change
from penjing.pruning.criteria._registry import criteria

EPOCHS = 3  # epochs in which the attention modules are trained
RATE = 0.1  # learning rate of Adam
REDUCTION = 4  # channels per hidden unit of an attention module


@criteria.register(
    source="Yamamoto & Maeno, PCAS: Pruning Channels with Attention Statistics for Deep Network Compression, 2018",
    needs={"data", "labels", "gradients", "training"},
    level="unit",
)
def attention(evidence: Evidence) -> list[Tensor]:
    """Attention statistics: mean over samples of the attention that a trained module gives to the unit.

    A squeeze-and-excitation module stands behind each group's activation functions. It multiplies the channels by
    σ(W₂ relu(W₁ z + b₁) + b₂), where z are the channels' means over positions; all factors start at ½. The network is
    frozen, and Adam trains the modules on the task's loss for three epochs of `batches` batches, in which the factors of
    channels that the loss needs rise. The score is the mean factor over one more epoch.
    """
    generator = torch.Generator().manual_seed(evidence.seed)
    device = next(evidence.graph.parameters()).device
    modules = [
        [Attention(site, group.units, device, generator) for site in sites(evidence, group)]
        for group in evidence.groups
    ]
    at: dict[str, list[Attention]] = {}
    for one in (one for found in modules for one in found):
        at.setdefault(one.site.node, []).append(one)
    changes = {node: _change(found) for node, found in at.items()}
    optimizer = torch.optim.Adam([p for found in modules for one in found for p in one.parameters], RATE)
    for loss in evidence.changed(changes, evidence.epochs or EPOCHS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    for one in (one for found in modules for one in found):
        one.total, one.rows = torch.zeros_like(one.total), 0
    with torch.no_grad():
        for loss in evidence.changed(changes, 1):
            loss()
    return [torch.stack([one.total / max(one.rows, 1) for one in found]).mean(0).float().cpu() for found in modules]


class Attention:
    """A squeeze-and-excitation module on the channels of one value in the graph; it sums up the attention that it gives.

    Attributes:
        site: the value behind which the module stands.
        parameters: W₁, b₁, W₂ and b₂.
        total: sum of the attention over samples, `(units,)`.
        rows: number of these samples.
    """

    def __init__(self, site: GroupValue, units: int, device: torch.device, generator: torch.Generator) -> None:
        hidden = max(units // REDUCTION, 1)
        weight = torch.randn(hidden, units, generator=generator) * (2 / units) ** 0.5  # He et al., 2015
        starts = (weight, torch.zeros(hidden), torch.zeros(units, hidden), torch.zeros(units))
        self.site, self.total, self.rows = site, torch.zeros(units, dtype=torch.float64), 0
        self.parameters = [start.to(device).requires_grad_() for start in starts]

    def given(self, value: Tensor) -> Tensor:
        """Returns the attention to each unit in each sample, `(samples, units)`."""
        inner, inner_bias, outer, outer_bias = self.parameters
        means = self.site.maps(value).transpose(1, 2).flatten(2).mean(2).T
        hidden = torch.relu(means.to(inner) @ inner.T + inner_bias)
        found = torch.sigmoid(hidden @ outer.T + outer_bias)
        self.total += found.detach().sum(0).double().cpu()
        self.rows += len(found)
        return found

    def __call__(self, value: Tensor) -> Tensor:
        """Returns the value with its channels multiplied by the attention."""
        given, axis, batch = self.given(value), self.site.axis, self.site.batch or 0
        indices = torch.from_numpy(self.site.indices).to(value.device)
        factors = torch.ones(len(given), value.shape[axis], dtype=value.dtype, device=value.device)
        each = given.to(value)[:, :, None].expand(-1, *indices.shape).flatten(1)
        factors = factors.index_copy(1, indices.flatten(), each)
        shape = [1] * value.dim()
        shape[axis], shape[batch] = factors.shape[1], factors.shape[0]
        return value * (factors if batch < axis else factors.T).reshape(shape)


def _change(found: Sequence[Attention]) -> Change:
    """Returns a function that applies all modules at one node to the node's value."""

    def attended(value: Tensor, _: Sequence[Any]) -> Tensor:
        for one in found:
            value = one(value)
        return value

    return attended
