"""Rounds weights to the integers with the least error of each layer's output."""

import torch

from penjing.errors import PenjingError
from penjing.quantization.rounding._descent import SWEEPS, WIDEST, descend, width
from penjing.quantization.rounding._hard import centred
from penjing.quantization.rounding._parts import Learned, SampledSpan
from penjing.quantization.rounding._registry import roundings
from penjing.quantization.rounding._spans import products
from penjing.quantization.weights.places import place_of


@roundings.register(
    source="Behdin et al. 2023, QuantEase: Optimization-based Quantization for Language Models, arXiv:2309.01885",
    needs={"data"},
    spans=products,
    number="the most sweeps over each layer's weights",
)
def quantease(part: SampledSpan, generator: torch.Generator, sweeps: int | None = None) -> Learned:
    """Moves one weight after the other to its best integer, over and over, so that the layer's products stay the same.

    This rounding is faster than `adaround` unless a layer has very many weights per output, and a weight may go to any
    integer, not just to its two neighbours. A clip behind the layer is ignored: values that the clip cuts off count as much as
    the rest. The paper takes X from the float network; here X is the output of the rounded layers before. See
    `descend`.

    Args:
        part: one layer.
        generator: draws a sample of positions where there are many.
        sweeps: the most sweeps over each layer's weights; they end where no weight moves any more.

    Returns:
        `(rows, weights)` integers, counted from the zero points, and the change of the bias, `(channels,)`, in the
        outputs' units.

    Raises:
        PenjingError: an output has more weights than fit in memory together.
    """
    if width(part) > WIDEST:
        raise PenjingError(
            f"quantease treats up to {WIDEST} weights of an output together, and '{place_of(part.span.layers[0])}' has "
            f"{width(part)}: round with 'adaround', or leave the layer in floating point with exclude=."
        )
    nearest = part.weights[0].real.round()
    if not part.is_product:  # the layer's bias is computed from the model's inputs
        return Learned([nearest])
    return centred(part, [descend(part, nearest, generator, sweeps or SWEEPS)]).learned
