"""Up or down, learned from what each block should give."""

import torch

from penjing.quantization.rounding._importance import gauss_newton
from penjing.quantization.rounding._parts import Learned, Part
from penjing.quantization.rounding._registry import roundings
from penjing.quantization.rounding._soft import learn
from penjing.quantization.rounding._spans import blocks

ITERATIONS = 500


@roundings.register(
    source="Li et al. 2021, BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction, "
    "arXiv:2102.05426",
    needs=("data",),
    learned=True,
    spans=blocks,
    importance=gauss_newton,
    number="the iterations for each block",
)
def brecq(part: Part, generator: torch.Generator, iterations: int | None = None) -> Learned:
    """Learns all weights of a block together, so that the block still gives what it gave: "brecq:1000".

    Minimises E[Δzᵀ diag(F) Δz] + λ Σ (1 − |2h(V) − 1|^β), where Δz is what the rounded block's output is off, with inputs
    that are rounded already and activations rounded inside as in the graph, and the weights are rounded softly as in
    `adaround`. Errors of its layers may cancel, which layers learned alone can't make use of. See `blocks` for what a block
    is.

    A block that is one layer moves its bias too, and one with no clip behind goes on as in `quantease`; see `learn`.

    Where the paper weighs each number of the output, of each image, by the squared gradient of the classification loss, F
    here is one weight for each channel: the diagonal of JᵀJ, J the derivatives of the network's outputs. That is the Fisher
    matrix of the outputs' squared error, so it needs no labels and suits all outputs. Ranges of activations aren't learned.
    The paper takes 20,000 iterations with 32 images; here it is fewer, with as many images as make some thousand positions.

    Args:
        part: a block.
        generator: draws the samples of each iteration.
        iterations: for the block.

    Returns:
        `(rows, weights)` integers for each of its weights, counted from the zero points; `(channels,)` for the bias of a
        block that is one layer, in the outputs' units.
    """
    return learn(part, generator, iterations or ITERATIONS)
