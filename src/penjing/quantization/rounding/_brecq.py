"""Learns to round weights up or down from each block's float output."""

import torch

from penjing.quantization.rounding._importance import gauss_newton
from penjing.quantization.rounding._parts import Learned, SampledSpan
from penjing.quantization.rounding._registry import roundings
from penjing.quantization.rounding._soft import learn
from penjing.quantization.rounding._spans import blocks

ITERATIONS = 500


@roundings.register(
    source="Li et al. 2021, BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction, "
    "arXiv:2102.05426",
    needs={"data"},
    spans=blocks,
    importance=gauss_newton,
    number="the iterations for each block",
)
def brecq(part: SampledSpan, generator: torch.Generator, iterations: int | None = None) -> Learned:
    """Learns the rounding of all weights of a block together, so that the block's output stays the same: "brecq:1000".

    Minimises E[Δzᵀ diag(F) Δz] + λ Σ (1 − |2h(V) − 1|^β), where Δz is the error of the rounded block's output. The
    block's inputs come from the rounded network, its activations are rounded inside as in the graph, and its weights
    are rounded softly as in `adaround`. Errors of a block's layers may cancel; layers that are learned one by one can't
    make use of that. `blocks` defines the blocks.

    A block of one layer learns its bias too, and one without a clip behind is refined as in `quantease`; see `learn`.

    The paper weighs each output value of each image by the squared gradient of the classification loss. Here F holds
    one weight for each channel: the diagonal of JᵀJ, where J are the derivatives of the network's outputs. This is the
    Fisher matrix of the outputs' squared error, so it needs no labels and suits any kind of output. Ranges of
    activations aren't learned. The paper takes 20,000 iterations of 32 images; here there are fewer iterations, each
    with as many images as make some thousand positions.

    Args:
        part: one block.
        generator: draws the samples of each iteration.
        iterations: iterations for the block; 500 by default.

    Returns:
        `(rows, weights)` integers for each of the block's weights, counted from the zero points; for a block of one
        layer also the change of its bias, `(channels,)`, in the outputs' units.
    """
    return learn(part, generator, iterations or ITERATIONS)
