"""Learns to round weights up or down from each layer's float output."""

import torch

from penjing.quantization.rounding._parts import Learned, SampledSpan
from penjing.quantization.rounding._registry import roundings
from penjing.quantization.rounding._soft import learn
from penjing.quantization.rounding._spans import layers

ITERATIONS = 500


@roundings.register(
    source="Nagel et al. 2020, Up or Down? Adaptive Rounding for Post-Training Quantization, arXiv:2004.10568",
    needs={"data"},
    spans=layers,
    number="the iterations for each layer",
)
def adaround(part: SampledSpan, generator: torch.Generator, iterations: int | None = None) -> Learned:
    """Learns for each weight whether to round it up or down, so that the layer's output stays the same: "adaround:1000".

    Minimises ‖f(Wx) − f(W̃x̂)‖² + λ Σ (1 − |2h(V) − 1|^β), where W̃ is W rounded softly, x̂ is the output of the
    rounded layers before, and f is the clip behind the layer (the paper's asymmetric reconstruction, equation 25). The
    paper takes 10,000 iterations of 32 whole images; here there are fewer iterations, each with as many images as make
    some thousand positions.

    Three things go beyond the paper. The layer's bias is learned too, so that no weight has to make up for an error
    that all outputs of a channel share. Channels for which rounding to nearest, with such a bias, gives a smaller error
    are rounded to nearest. Layers without a clip behind are refined as in `quantease`, up to a width.

    Args:
        part: one layer.
        generator: draws the samples of each iteration.
        iterations: iterations for the layer; 500 by default.

    Returns:
        `(rows, weights)` integers, counted from the zero points, and the change of the bias, `(channels,)`, in the
        outputs' units.
    """
    return learn(part, generator, iterations or ITERATIONS)
