"""Soft rounding, which learned roundings share: real-valued while it is learned, hard in the end (Nagel et al. 2020)."""

import math

import torch
from torch import Tensor

from penjing.quantization.rounding._descent import WIDEST, descend, width
from penjing.quantization.rounding._hard import better, centred
from penjing.quantization.rounding._parts import Learned, Rounded, SampledSpan

STRETCH = (-0.1, 1.1)  # range of the sigmoid before clipping, so that it reaches 0 and 1
LEARNING_RATE = 0.1
BIAS_RATE = 5e-3  # learning rate of the bias, in standard deviations of the outputs
WARM_UP = 0.2  # share of the iterations without the regulariser
SHARPNESS = (20.0, 2.0)  # β of the regulariser, from the end of the warm-up to the last iteration
BALANCE = 0.1
POSITIONS, IMAGES, VECTORS = 4096, 32, 256  # most per iteration: positions, images, samples of one position each
PROBED = 2**14  # output positions from which the error of rounding to nearest is estimated


def learn(part: SampledSpan, generator: torch.Generator, iterations: int) -> Learned:
    """Learns whether to round each weight of a part up or down so that the part's output stays close to its float output.

    Minimises the part's error + λ Σ (1 − |2h(V) − 1|^β), where h is a stretched sigmoid and the weights are
    s·clip(⌊W/s⌋ + h(V)). β falls from 20 to 2, which pushes h(V) to 0 or 1. The error is divided by the error of
    rounding to nearest, so that λ means the same for every part.

    A bias that only this part reads is learned too. It takes up the outputs' mean error, so that the rounding is free
    to reduce the rest (biases are tuned like this in Hubara et al. 2020, arXiv:2006.10518). The result is then compared
    with rounding to nearest on more samples, both with the bias that makes the outputs' mean right, and the better of
    the two is taken, channel by channel where the part is one layer. A single layer without a clip is then refined by
    `descend`, in which a weight may go to any integer.

    Args:
        part: the part, with its weights, inputs and wanted output.
        generator: draws the samples of each iteration.
        iterations: the number of iterations.
    """
    soft = [_Soft(weight) for weight in part.weights]
    spread = part.spread
    moved = torch.zeros_like(spread, requires_grad=True)  # change of the bias, in standard deviations of the outputs
    rates = [{"params": [one.v for one in soft]}, {"params": [moved], "lr": BIAS_RATE}]
    optimizer = torch.optim.Adam(rates if part.bias is not None else rates[:1], LEARNING_RATE, fused=True)
    unit, warm = _unit(part), int(WARM_UP * iterations)
    size = _samples(part)
    with torch.enable_grad():
        for iteration in range(iterations):
            chosen = torch.randint(part.count, (size,), generator=generator)
            h = [one.h() for one in soft]
            weights = [one.values(up) for one, up in zip(soft, h, strict=True)]
            loss = part.error(weights, chosen, moved * spread) / unit
            if iteration >= warm:
                done = (iteration - warm) / max(1, iterations - warm)
                beta = SHARPNESS[1] + 0.5 * (SHARPNESS[0] - SHARPNESS[1]) * (1 + math.cos(math.pi * done))
                for up in h:
                    loss = loss + BALANCE * (1 - (2 * up - 1).abs().pow(beta)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    nearest = centred(part, [weight.real.round() for weight in part.weights])
    found = better(part, centred(part, [one.hard() for one in soft], moved.detach() * spread), nearest)
    if not part.is_product or width(part) > WIDEST:
        return found
    return centred(part, [descend(part, found.integers[0], generator)]).learned


class _Soft:
    """A weight tensor each entry of which lies between two integers."""

    def __init__(self, weight: Rounded) -> None:
        self._weight, self._below = weight, weight.real.floor()
        low, high = STRETCH
        h = (weight.real - self._below).clamp(1e-4, 1 - 1e-4)
        self.v = torch.log((h - low) / (high - h)).requires_grad_()

    def h(self) -> Tensor:
        """Returns how far each entry lies above its lower integer, 0 to 1."""
        low, high = STRETCH
        return (torch.sigmoid(self.v) * (high - low) + low).clamp(0, 1)

    def values(self, h: Tensor) -> Tensor:
        return self._weight.values(self._below + h)

    def hard(self) -> Tensor:
        """Returns the integers to which the entries are nearer."""
        return self._below + (self.v.detach() > 0)


def _samples(part: SampledSpan) -> int:
    """Returns the number of samples in each iteration."""
    return VECTORS if part.positions == 1 else max(1, min(IMAGES, POSITIONS // part.positions))


def _unit(part: SampledSpan) -> float:
    """Returns 12 times the error of rounding to nearest, per weight, since a uniform error's variance is 1/12 squared step."""
    chosen = slice(0, max(1, PROBED // part.positions))
    with torch.no_grad():
        exact = part.output([weight.values(weight.real) for weight in part.weights], chosen)
        nearest = part.output([weight.values(weight.real.round()) for weight in part.weights], chosen)
        error = float(part.distance(nearest, exact))
    return 12 * error / sum(weight.real.numel() for weight in part.weights) or 1.0
