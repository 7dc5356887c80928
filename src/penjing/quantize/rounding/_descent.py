"""Integer least squares by coordinate descent: one weight after the other goes to its best integer (Behdin et al. 2023)."""

import math

import torch
from torch import Tensor

from penjing.quantize.rounding._moments import moments
from penjing.quantize.rounding._parts import Part

SWEEPS = 20
DAMPING = 0.01  # of the inputs' mean power


def descend(part: Part, integers: Tensor, generator: torch.Generator, sweeps: int = SWEEPS) -> Tensor:
    """Moves the weights of a part that is one layer, with nothing behind it, until no single move lowers its error.

    Minimises ‖Y − XŴᵀ‖² + λ‖Ŵ − W‖² over the integers, about the means where the layer's bias takes these up: X comes out
    of the rounded layers before, Y is what the float network gives, so that weights also make up for what X is off. λ keeps
    them from fitting the samples.

    Args:
        part: the layer.
        integers: `(rows, weights)` to begin with, counted from the zero points.
        generator: draws positions, where there are many.
        sweeps: the most over all weights.

    Returns:
        `(rows, weights)` integers.
    """
    (weight,) = part.weights
    found = moments(part, generator)
    shape = found.both.shape  # groups, outputs, weights
    scale = weight.laid.scale.double()[:, None].expand(integers.shape).reshape(shape)
    low, high = (weight.held(torch.full_like(integers, end)).double().reshape(shape) for end in (-math.inf, math.inf))
    damping = DAMPING * found.inputs.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    curvature = found.inputs + damping * torch.eye(shape[2], dtype=torch.float64)
    best = integers.double().reshape(shape).maximum(low).minimum(high)
    gradient = (best * scale) @ curvature - found.both - damping * weight.real.double().reshape(shape) * scale
    for _ in range(sweeps):
        before = best.clone()
        for one in range(shape[2]):
            slope = curvature[:, one, one, None].clamp_min(torch.finfo(torch.float64).tiny) * scale[:, :, one]
            moved = (best[:, :, one] - gradient[:, :, one] / slope).round()
            moved = moved.maximum(low[:, :, one]).minimum(high[:, :, one])
            change = (moved - best[:, :, one]) * scale[:, :, one]
            if change.any():
                best[:, :, one] = moved
                gradient += change[:, :, None] * curvature[:, one, None, :]
        if best.equal(before):
            break
    return best.reshape(integers.shape).to(integers.dtype)
