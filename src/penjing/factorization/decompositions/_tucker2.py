"""Tucker's decomposition of the two channel axes."""

import torch
from torch import Tensor

from penjing.factorization.decompositions._registry import (
    Decomposition,
    FactorLayer,
    FactorShape,
    Ranks,
    Shape,
    decompositions,
)
from penjing.factorization.split import outputs, spectrum, split
from penjing.factorization.weighting import Weighting, with_ridge

SWEEPS = (
    3  # times that each side is found anew with the other as it is; further ones change the fourth digit of the error
)


@decompositions.register(
    source="Kim et al., Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications, 2016 "
    "(Tucker-2); De Lathauwer, De Moor, Vandewalle, 2000 (HOSVD and HOOI)",
    name="tucker2",
)
class Tucker2(Decomposition):
    """Three layers: a 1×1 convolution to fewer channels, the kernel between few channels, a 1×1 convolution back."""

    ranks = ("out", "in")

    def unfit(self, shape: Shape) -> str:
        """There must be a kernel between the channels; a matrix has a singular value decomposition."""
        return "no window" if all(size == 1 for size in shape[2:]) else ""

    def full(self, shape: Shape) -> Ranks:
        """Returns the ranks of both unfoldings, at most."""
        window = int(torch.Size(shape[2:]).numel())
        return min(shape[0], shape[1] * window), min(shape[1], shape[0] * window)

    def limits(self, shape: Shape, ranks: Ranks) -> Ranks:
        """Returns the highest ranks: neither can be more than the other one times the kernel's positions."""
        window = int(torch.Size(shape[2:]).numel())
        outs, ins = self.full(shape)
        return min(outs, ranks[1] * window), min(ins, ranks[0] * window)

    def alike(self, shape: Shape, share: float) -> Ranks:
        """Returns the same rank on both sides, a share of the input channels, as in the closed form of `k_max`."""
        wanted = max(1, round(share * shape[1]))
        return tuple(min(wanted, full) for full in self.full(shape))

    def shapes(self, shape: Shape, ranks: Ranks) -> list[FactorShape]:
        """Returns (in rank, in), (out rank, in rank, *kernel) and (out, out rank)."""
        outs, ins, *window = shape
        ones = [1] * len(window)
        return [
            FactorShape((ranks[1], ins, *ones), ()),
            FactorShape((ranks[0], ranks[1], *window), tuple(range(len(window)))),
            FactorShape((outs, ranks[0], *ones), ()),
        ]

    def spectra(self, weighting: Weighting) -> tuple[Tensor, ...]:
        """Returns the singular values of the unfoldings along the output and along the input channels."""
        weight = weighting.weight
        return (
            spectrum(weighting.flat, weighting.ridged, weighting.outer),
            spectrum(_inputs(weight), weighting.channels, None),
        )

    def factors(self, weighting: Weighting, ranks: Ranks) -> list[FactorLayer]:
        """Finds the output's subspace, then the input's within it, and both again (higher-order orthogonal iteration)."""
        weight, channels = weighting.weight, weighting.channels
        out_rank, in_rank = ranks
        window, reached = weight.shape[2:], weight
        for sweep in range(SWEEPS):
            back = outputs(reached.flatten(1), out_rank, weighting.ridged, weighting.outer)
            counted = back if weighting.outer is None else weighting.outer @ back
            within = (counted.T @ weighting.flat).reshape(out_rank, *weight.shape[1:])
            inner = split(_inputs(within), in_rank, channels)
            if sweep < SWEEPS - 1:
                reached = _kept_inputs(weight, inner.first, channels)
        core = inner.last.reshape(out_rank, *window, in_rank).movedim(-1, 1)
        ones = [1] * len(window)
        return [
            FactorLayer(inner.first.reshape(in_rank, -1, *ones), ()),
            FactorLayer(core, tuple(range(len(window)))),
            FactorLayer(back.reshape(-1, out_rank, *ones), ()),
        ]


def _inputs(weight: Tensor) -> Tensor:
    """Returns the unfolding (out · kernel, in)."""
    return weight.movedim(1, -1).reshape(-1, weight.shape[1])


def _kept_inputs(weight: Tensor, first: Tensor, gram: Tensor | None) -> Tensor:
    """Returns the weight with its inputs projected on what `first` (in rank, in) passes on, by least squares.

    Where all inputs count alike, in coordinates of that subspace, which gives the same outputs in less memory.
    """
    if gram is None:
        return torch.tensordot(weight, torch.linalg.qr(first.T)[0], ([1], [0])).movedim(-1, 1)
    inputs, right = _inputs(weight), first @ gram
    fitted = torch.linalg.solve(with_ridge(right @ first.T, 1e-12), right @ inputs.T)  # (in rank, out · kernel)
    shape = (weight.shape[0], *weight.shape[2:], weight.shape[1])
    return (fitted.T @ first).reshape(shape).movedim(-1, 1)
