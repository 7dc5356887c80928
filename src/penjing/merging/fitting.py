"""Fits one convolution to what a run of them does: the least squares of the outputs' errors on data.

What a linear map can do in the place of layers with activations between them depends on the values that come by. So the
weights aren't composed of those of the layers with the activations left out, as in depth compression by merging (Fu et al.,
DepthShrinker, 2022; Kim et al., LayerMerge, 2024), but solve linear equations in the moments of windows and outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.memory import Found
from penjing.merging.runs import Run

ENOUGH = 32  # windows per batch for each of their values
RIDGE = 1e-4  # strength that pulls weights to 0, relative to the mean square of the inputs


@dataclass(frozen=True)
class Fit:
    """One convolution in the place of a run.

    Attributes:
        weight: (out, in, *kernel).
        bias: (out,).
        error: power of the outputs' error over the outputs' variance.
    """

    weight: Tensor
    bias: Tensor
    error: float


def fitted(evidence: Evidence, wanted: Mapping[str, tuple[Run, tuple[int, ...]]]) -> dict[str, Fit]:
    """Returns the convolutions with the least errors, from one pass over the data.

    Args:
        evidence: the graph and the data.
        wanted: runs and the kernels of the convolutions that are to stand for them, by any name.

    Raises:
        PenjingError: there is no data, or the values that a run reads or makes aren't finite.
    """

    def find(missing: list[str]) -> dict[str, Found]:
        sums = {name: _Sums(*wanted[name]) for name in missing}
        tapped = sorted({node for one in sums.values() for node in (one.run.source, one.run.nodes[-1])})
        for values in evidence.values(tapped):
            for one in sums.values():
                one.add(values[one.run.source].float(), values[one.run.nodes[-1]].float())
        return {name: one.solved() for name, one in sums.items()}

    about = {name: [list(kernel), *run.nodes] for name, (run, kernel) in wanted.items()}
    found = evidence.gather("merged", {"enough": ENOUGH, "ridge": RIDGE, "runs": about}, wanted, find)
    return {name: Fit(one["weight"], one["bias"], float(one["error"])) for name, one in found.items()}


class _Sums:
    """Sums of products over windows of a run's input, with a 1 behind each, and over the outputs of these places."""

    def __init__(self, run: Run, kernel: Sequence[int]) -> None:
        self.run, self._kernel = run, tuple(kernel)
        padding = run.padding_of(kernel)
        assert padding is not None  # it is among the kernels of the run
        self._padding = padding
        self._gram = self._cross = self._power = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Adds a batch of inputs (N, in, …) and outputs (N, out, …)."""
        windows = F.unfold(x, self._kernel, 1, self._padding, self.run.stride).transpose(0, 1).flatten(1)
        outputs = y.transpose(0, 1).flatten(1)
        size, count = windows.shape
        if count > ENOUGH * size:
            drawn = torch.randint(count, (ENOUGH * size,), generator=torch.Generator().manual_seed(count)).to(x.device)
            windows, outputs = windows[:, drawn], outputs[:, drawn]
        windows = torch.cat([windows, torch.ones_like(windows[:1])]).double()
        outputs = outputs.double()
        self._gram = self._gram.to(x.device) + windows @ windows.T
        self._cross = self._cross.to(x.device) + outputs @ windows.T
        self._power = self._power.to(x.device) + outputs.square().sum(1)

    def solved(self) -> Found:
        """Returns weight and bias, and the share of the outputs' variance that they miss."""
        if not all(bool(one.isfinite().all()) for one in (self._gram, self._cross)):
            raise PenjingError(f"On this data {self.run.path} reads or makes values that aren't finite numbers.")
        inner = self._gram.clone()
        inputs = inner.diagonal()[:-1]
        inputs += RIDGE * inputs.mean().clamp_min(torch.finfo(torch.float64).tiny)
        found = torch.linalg.solve(inner, self._cross.T).T
        count, sums = self._gram[-1, -1], self._cross[:, -1]
        missed = self._power - 2 * (found * self._cross).sum(1) + ((found @ self._gram) * found).sum(1)
        varies = self._power - sums.square() / count
        error = missed.sum().clamp_min(0.0) / varies.sum().clamp_min(torch.finfo(torch.float64).tiny)
        shape = (self.run.channels[1], self.run.channels[0], *self._kernel)
        return {"weight": found[:, :-1].reshape(shape).float(), "bias": found[:, -1].float(), "error": error}
