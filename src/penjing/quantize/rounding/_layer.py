"""A layer whose rounding is learned: what its output differs by when its weights are certain integers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.quantize.grids import Laid
from penjing.quantize.rounding._samples import Samples

ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Layer:
    """A layer and the grid of its weights.

    Attributes:
        real: `(rows, weights)`, the weights in steps of the grid, counted from its zero points.
        laid: the grid.
        outputs: how many the layer has.
        groups: of a convolution; 1 for others.
        bias: `(outputs,)`, if it has one.
        bounds: of the clip behind it, which hides all errors beyond.
    """

    real: Tensor
    laid: Laid
    outputs: int
    groups: int
    bias: Tensor | None
    bounds: tuple[float, float]

    def weight(self, integers: Tensor) -> Tensor:
        """Returns the weights that integers stand for, `(groups, outputs per group, weights per output)`.

        Args:
            integers: `(rows, weights)`, counted from the zero points; those beyond the grid become its ends.
        """
        zero = self.laid.zero_point[:, None]
        held = (integers + zero).clamp(self.laid.grid.low, self.laid.grid.high) - zero
        return (held * self.laid.scale[:, None]).reshape(self.groups, self.outputs // self.groups, -1)

    def error(self, integers: Tensor, patches: Tensor, wanted: Tensor) -> Tensor:
        """Returns the mean squared difference of each output, `(groups, outputs per group)`; arguments as in `Samples`."""
        made = patches @ self.weight(integers).transpose(1, 2)
        if self.bias is not None:
            made = made + self.bias.reshape(self.groups, 1, -1)
        return (made.clamp(*self.bounds) - wanted.clamp(*self.bounds)).square().mean(1)

    def whole_error(self, integers: Tensor, samples: Samples) -> Tensor:
        """Returns the same over all samples."""
        pieces = zip(samples.patches.split(ROWS_AT_ONCE, 1), samples.outputs.split(ROWS_AT_ONCE, 1), strict=True)
        sums = [self.error(integers, patches, wanted) * patches.shape[1] for patches, wanted in pieces]
        return torch.stack(sums).sum(0) / samples.patches.shape[1]

    def by_output(self, values: Tensor) -> Tensor:
        """Spreads one value for each output, `(groups, outputs per group)`, over the weights, `(rows, weights)`."""
        return values.reshape(-1, 1).expand(self.outputs, self.real.numel() // self.outputs).reshape(self.real.shape)
