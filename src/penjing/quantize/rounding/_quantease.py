"""To the integers with which each layer gives most nearly what it should."""

import torch

from penjing.quantize.rounding._descent import SWEEPS, descend
from penjing.quantize.rounding._hard import centred
from penjing.quantize.rounding._parts import Learned, Part
from penjing.quantize.rounding._registry import roundings
from penjing.quantize.rounding._spans import products


@roundings.register(
    source="Behdin et al. 2023, QuantEase: Optimization-based Quantization for Language Models, arXiv:2309.01885",
    needs=("data",),
    learned=True,
    spans=products,
    number="the most sweeps over each layer's weights",
)
def quantease(part: Part, generator: torch.Generator, sweeps: int | None = None) -> Learned:
    """Moves one weight after the other to its best integer, over and over, so that a layer's products stay what they were.

    A few seconds for a layer that `adaround` needs minutes for, with any integer for a weight, not just the two beside it. A
    clip behind the layer is not seen: what it cuts off counts as much as the rest. The paper reads X from the float network;
    here it is what the rounded layers before give. See `descend`.

    Args:
        part: a layer.
        generator: draws positions, where there are many.
        sweeps: the most over each layer's weights; they end where no weight moves any more.
    """
    nearest = part.weights[0].real.round()
    return centred(part, [descend(part, nearest, generator, sweeps or SWEEPS)]).learned
