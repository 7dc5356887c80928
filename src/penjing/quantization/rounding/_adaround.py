"""Up or down, learned from what each layer should give."""

import torch

from penjing.quantization.rounding._parts import Learned, Part
from penjing.quantization.rounding._registry import roundings
from penjing.quantization.rounding._soft import learn
from penjing.quantization.rounding._spans import layers

ITERATIONS = 500


@roundings.register(
    source="Nagel et al. 2020, Up or Down? Adaptive Rounding for Post-Training Quantization, arXiv:2004.10568",
    needs=("data",),
    learned=True,
    spans=layers,
    number="the iterations for each layer",
)
def adaround(part: Part, generator: torch.Generator, iterations: int | None = None) -> Learned:
    """Learns for each weight whether it goes up or down, so that its layer still gives what it gave: "adaround:1000".

    Minimises ‖f(Wx) − f(W̃x̂)‖² + λ Σ (1 − |2h(V) − 1|^β), where W̃ is W rounded softly, x̂ comes out of the layers before,
    which are rounded already, and f is the clip behind the layer (the paper's asymmetric reconstruction, equation 25). The
    paper takes 10,000 iterations with 32 whole images; here it is fewer, with as many images as make some thousand positions.

    Beyond the paper, the layer's bias moves along, so that what all outputs of a channel are off by costs no weight anything;
    channels that rounding to nearest serves better, with such a bias, get that; and layers without a clip behind go on as in
    `quantease`, up to their width.

    Args:
        part: a layer.
        generator: draws the samples of each iteration.
        iterations: for the layer.

    Returns:
        `(rows, weights)` integers, counted from the zero points, and `(channels,)` for the bias, in the outputs' units.
    """
    return learn(part, generator, iterations or ITERATIONS)
