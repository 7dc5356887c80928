"""Integer least squares by coordinate descent: moves one weight after another to its best integer (Behdin et al. 2023)."""

import math

import torch
from torch import Tensor

from penjing.evidence.moments import Moments, moments
from penjing.quantization.rounding._parts import SampledSpan

SWEEPS = 20
DAMPINGS = (0.01, 0.1, 1.0)  # candidates for λ, as shares of the inputs' mean power
TRIAL = 4  # sweeps with which each damping is tried
CONSTANT = 1e-9  # share of an input's power: an input that varies less is constant up to rounding errors
WIDEST = 2**13  # most weights per output: the moments of so many take half a gigabyte


def descend(part: SampledSpan, integers: Tensor, generator: torch.Generator, sweeps: int = SWEEPS) -> Tensor:
    """Moves the weights of a part that is a single layer, without a clip, as long as moving one of them lowers the error.

    Minimises ‖Y − XŴᵀ‖² + λ‖Ŵ − W‖² over the integers. X is the output of the rounded layers before and Y the output of
    the float layer, so the weights also make up for errors in X. Both are centred where the layer's own bias takes up
    the means. λ keeps the weights from overfitting the samples: of several λ the one is taken whose weights, fitted to
    half of the samples, have the least error on the other half. Where the given integers have a smaller error there,
    they stay.

    Args:
        part: the layer.
        integers: `(rows, weights)` to start from, counted from the zero points.
        generator: draws a sample of positions where there are many.
        sweeps: the most sweeps over all weights.

    Returns:
        `(rows, weights)` integers.
    """
    (weight,) = part.weights
    halves = moments_of(part, generator)
    problem = IntegerLeastSquares(part, halves[0].both.shape)
    start = problem.laid(weight.held(integers))
    if not all(half.count for half in halves):
        return integers
    errors = {
        damping: halves[1].error(problem.solve(halves[0], damping, start, min(TRIAL, sweeps)) * problem.scale)
        for damping in DAMPINGS
    }
    best = min(errors, key=errors.__getitem__)
    if halves[1].error(start * problem.scale) <= errors[best]:
        return integers
    found = problem.solve(halves[0].joined(halves[1]), best, start, sweeps)
    return found.reshape(integers.shape).to(integers.dtype)


def moments_of(part: SampledSpan, generator: torch.Generator) -> tuple[Moments, Moments]:
    """Returns the moments of both halves of a part's samples; the part is a single layer, without a clip.

    The moments are central where the part has its own bias, since the bias takes up the means.
    """
    return moments(part.span.layers[0], part.inputs[0], part.products, generator, central=part.bias is not None)


def width(part: SampledSpan) -> int:
    """Returns the number of weights per output of a part that is a single layer."""
    (weight,) = part.weights
    return weight.shape[1:].numel()


class IntegerLeastSquares:
    """A layer's weights as integers by group, `(groups, outputs, weights)`, with their bounds."""

    def __init__(self, part: SampledSpan, shape: torch.Size) -> None:
        (weight,) = part.weights
        self._shape = shape
        self.scale = self.laid(weight.laid.scale[:, None].expand(weight.real.shape))
        self._real = self.laid(weight.real) * self.scale
        self._low, self._high = (
            self.laid(weight.held(torch.full_like(weight.real, end))) for end in (-math.inf, math.inf)
        )

    def laid(self, rows: Tensor) -> Tensor:
        """Reshapes `(rows, weights)` to `(groups, outputs, weights)` float64."""
        return rows.double().reshape(self._shape)

    def solve(self, found: Moments, damping: float, start: Tensor, sweeps: int) -> Tensor:
        """Returns integers of which no single move lowers the error, or those reached after `sweeps` sweeps."""
        ridge = damping * found.inputs.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        curvature = found.inputs + ridge * torch.eye(self._shape[2], dtype=torch.float64, device=ridge.device)
        fixed = found.inputs.diagonal(dim1=1, dim2=2) <= CONSTANT * found.power
        low, high = (torch.where(fixed[:, None], start, end) for end in (self._low, self._high))
        best = start.clone()
        gradient = (best * self.scale) @ curvature - found.both - ridge * self._real
        for _ in range(sweeps):
            before = best.clone()
            for one in range(self._shape[2]):
                scale = self.scale[:, :, one]
                slope = curvature[:, one, one, None].clamp_min(torch.finfo(torch.float64).tiny) * scale
                moved = (best[:, :, one] - gradient[:, :, one] / slope).round()
                moved = moved.maximum(low[:, :, one]).minimum(high[:, :, one])
                change = (moved - best[:, :, one]) * scale
                if change.any():
                    best[:, :, one] = moved
                    gradient += change[:, :, None] * curvature[:, one, None, :]
            if best.equal(before):
                break
        return best
