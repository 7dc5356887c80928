"""To the integers with which each layer gives most nearly what it should."""

import torch

from penjing.errors import PenjingError
from penjing.quantization._places import place_of
from penjing.quantization.rounding._descent import SWEEPS, WIDEST, descend, width
from penjing.quantization.rounding._hard import centred
from penjing.quantization.rounding._parts import Learned, Part
from penjing.quantization.rounding._registry import roundings
from penjing.quantization.rounding._spans import products


@roundings.register(
    source="Behdin et al. 2023, QuantEase: Optimization-based Quantization for Language Models, arXiv:2309.01885",
    needs=("data",),
    learned=True,
    spans=products,
    number="the most sweeps over each layer's weights",
)
def quantease(part: Part, generator: torch.Generator, sweeps: int | None = None) -> Learned:
    """Moves one weight after the other to its best integer, over and over, so that a layer's products stay what they were.

    Faster than `adaround` unless a layer has very many weights for each output, and with any integer for a weight, not just
    the two beside it. A clip behind the layer is not seen: what it cuts off counts as much as the rest. The paper reads X
    from the float network; here it is what the rounded layers before give. See `descend`.

    Args:
        part: a layer.
        generator: draws positions, where there are many.
        sweeps: the most over each layer's weights; they end where no weight moves any more.

    Returns:
        `(rows, weights)` integers, counted from the zero points, and `(channels,)` for the bias, in the outputs' units.

    Raises:
        PenjingError: an output has more weights than can be treated together.
    """
    if width(part) > WIDEST:
        raise PenjingError(
            f"quantease treats up to {WIDEST} weights of an output together, and '{place_of(part.span.layers[0])}' has "
            f"{width(part)}: round with 'adaround', or leave the layer in floating point with exclude=."
        )
    nearest = part.weights[0].real.round()
    if not part.is_product:  # its bias is computed from the model's inputs
        return Learned([nearest])
    return centred(part, [descend(part, nearest, generator, sweeps or SWEEPS)]).learned
