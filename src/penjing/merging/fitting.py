"""Fits one convolution to what a run of them does: the least squares of the outputs' errors on data.

What a linear map can do in the place of layers with activations between them depends on the values that come by. So the
weights aren't composed of those of the layers with the activations left out, as in depth compression by merging (Fu et al.,
DepthShrinker, 2022; Kim et al., LayerMerge, 2024), but solve linear equations in the moments of windows and outputs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.memory import Found
from penjing.merging.runs import Run

WINDOWS_PER_UNKNOWN = 32  # of a batch, at most: with more of them the solution hardly changes
AT_ONCE = 2**24  # values of windows that are written out at a time: 128 MiB in double precision
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
    found = evidence.gather("merged", {"windows": WINDOWS_PER_UNKNOWN, "ridge": RIDGE, "runs": about}, wanted, find)
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
        size = x.shape[1] * math.prod(self._kernel)
        count, most = len(y) * math.prod(y.shape[2:]), WINDOWS_PER_UNKNOWN * size
        drawn = torch.randint(count, (most,), generator=torch.Generator().manual_seed(count))
        places = (torch.arange(count) if count <= most else drawn).to(x.device)
        x = F.pad(x, [pad for pad in reversed(self._padding) for _ in range(2)])
        for some in places.split(max(1, AT_ONCE // size)):
            windows, outputs = self._at(x, y, some)
            self._gram = self._gram.to(x.device) + windows.T @ windows
            self._cross = self._cross.to(x.device) + outputs.T @ windows
            self._power = self._power.to(x.device) + outputs.square().sum(0)

    def _at(self, x: Tensor, y: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the windows of a padded input, a 1 behind each, and the outputs at these places, a row for each."""
        down, right = y.shape[2:]
        sample, row, column = places // (down * right), places // right % down, places % right
        rows, columns = (
            (at * step)[:, None] + torch.arange(size, device=x.device)
            for at, step, size in zip((row, column), self.run.stride, self._kernel, strict=True)
        )
        windows = x[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).flatten(1).double()
        return torch.cat([windows, torch.ones_like(windows[:, :1])], 1), y[sample, :, row, column].double()

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
