"""Measures how much the network's outputs depend on each inner channel."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from penjing.evidence.pieces import sample_count
from penjing.graph import Graph

SAMPLES = 64  # samples for gradients: with more, the mean over samples and positions hardly changes


def gauss_newton(
    graph: Graph, batches: Iterable[Sequence[Tensor]], axes: Mapping[str, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """Returns the diagonal of JᵀJ, with J the derivatives of the network's outputs by a value, averaged over each channel.

    With random signs ε, E[(∂ εᵀoutputs / ∂ value)²] is that diagonal (Hutchinson 1990); signs are drawn once for each sample.

    Args:
        graph: the float graph.
        batches: the graph's flat inputs.
        axes: the axis of the channels, by the name of the node that computes the value.
        generator: draws the signs.

    Returns:
        `(channels,)` by the node's name, scaled to mean 1.
    """
    sums: dict[str, Tensor] = {}
    left = SAMPLES
    for batch in batches:
        if left <= 0:
            break
        left -= sample_count(batch)
        for name, gradient in _gradients(graph, batch, axes, generator).items():
            axis = axes[name] % gradient.dim()
            found = gradient.square().movedim(axis, -1).flatten(0, -2).sum(0)
            sums[name] = sums.get(name, torch.zeros_like(found)) + found
    return {name: found / found.mean() if bool(found.any()) else found + 1 for name, found in sums.items()}


def _gradients(
    graph: Graph, batch: Sequence[Tensor], names: Iterable[str], generator: torch.Generator
) -> dict[str, Tensor]:
    names = list(names)
    tapped = graph.with_outputs(names)
    with torch.enable_grad():
        found = tapped.program(*(x.detach().requires_grad_(x.dtype.is_floating_point) for x in batch))
        outputs, values = found[: len(found) - len(names)], found[len(found) - len(names) :]
        floats = [y for y in outputs if isinstance(y, Tensor) and y.requires_grad]
        signs = [(torch.randint(2, y.shape, generator=generator) * 2 - 1).to(y) for y in floats]
        gradients = torch.autograd.grad(floats, values, signs, allow_unused=True, materialize_grads=True)
    return dict(zip(names, gradients, strict=True))
