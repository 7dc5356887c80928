"""Up or down, learned from what each layer should give."""

import math

import torch
from torch import Tensor

from penjing.quantize.rounding._layer import Layer
from penjing.quantize.rounding._registry import roundings
from penjing.quantize.rounding._samples import Samples

STRETCH = (-0.1, 1.1)  # of the sigmoid, so that it reaches 0 and 1
ITERATIONS = 1000
ROWS = 256
LEARNING_RATE = 2e-2
WARM_UP = 0.2  # share of the iterations without the regulariser
SHARPNESS = (20.0, 2.0)  # β of the regulariser, from the end of the warm-up to the last iteration
BALANCE = 0.1


@roundings.register(
    source="Nagel et al. 2020, Up or Down? Adaptive Rounding for Post-Training Quantization, arXiv:2004.10568",
    needs=("data",),
    learned=True,
    number="the iterations for each layer",
)
def adaround(layer: Layer, samples: Samples, generator: torch.Generator, iterations: int | None = None) -> Tensor:
    """Learns for each weight whether it goes up or down, so that its layer still gives what it gave: "adaround:1000".

    Minimises ‖f(Wx) − f(W̃x̂)‖² + λ Σ (1 − |2h(V) − 1|^β), where h is a stretched sigmoid, W̃ = s·clip(⌊W/s⌋ + h(V)), x̂
    comes out of the layers before, which are rounded already, and f is the clip behind the layer (the paper's asymmetric
    reconstruction, equation 25). β falls from 20 to 2, which pushes h(V) to 0 or 1. The paper takes 10,000 iterations with
    32 whole images; here each takes 256 random positions. The error is measured in steps of the grid at the input's size,
    so that λ means the same for every layer. A channel whose error on all samples isn't lower than with `nearest` is
    rounded to nearest.

    Args:
        layer: its weight, grid and clip.
        samples: its input and wanted output.
        generator: draws the positions of each iteration.
        iterations: for the layer.

    Returns:
        `(rows, weights)` integers, counted from the zero points.
    """
    iterations = iterations or ITERATIONS
    steps = layer.real.floor()
    h = (layer.real - steps).clamp(1e-4, 1 - 1e-4)
    low, high = STRETCH
    v = torch.log((h - low) / (high - h)).requires_grad_()
    optimizer = torch.optim.Adam([v], LEARNING_RATE)
    unit = float(layer.laid.scale.square().mean() * samples.patches.square().mean()) or 1.0
    warm = int(WARM_UP * iterations)
    with torch.enable_grad():
        for iteration in range(iterations):
            chosen = torch.randint(samples.patches.shape[1], (ROWS,), generator=generator).to(v.device)
            h = _stretched(v)
            error = layer.error(steps + h, samples.patches[:, chosen], samples.outputs[:, chosen])
            loss = error.sum() / unit
            if iteration >= warm:
                done = (iteration - warm) / max(1, iterations - warm)
                beta = SHARPNESS[1] + 0.5 * (SHARPNESS[0] - SHARPNESS[1]) * (1 + math.cos(math.pi * done))
                loss = loss + BALANCE * (1 - (2 * h - 1).abs().pow(beta)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        learned, nearest = steps + (v > 0), layer.real.round()
        better = layer.whole_error(learned, samples) < layer.whole_error(nearest, samples)
        return torch.where(layer.by_output(better), learned, nearest)


def _stretched(v: Tensor) -> Tensor:
    low, high = STRETCH
    return (torch.sigmoid(v) * (high - low) + low).clamp(0, 1)
