"""The mean error behind each activation function, taken out of the bias before it."""

from typing import Any

from penjing.graph import Graph
from penjing.graph.clips import CLIPS, EVERYTHING, Interval
from penjing.quantization.corrections._means import match_means
from penjing.quantization.corrections._registry import corrections
from penjing.quantization.corrections._side_by_side import Layer


@corrections.register(
    source="Nagel et al. 2019, section 4.2, arXiv:1906.04721, with the means taken behind the clip; solved as in Robbins "
    "and Monro 1951, A Stochastic Approximation Method",
    needs=("data",),
    stage="quantized",
)
def activation_correction(graph: Graph, reference: Graph, data: Any) -> tuple[str, ...]:
    """Changes each bias so that the mean behind the layer's ReLU or clip, what the next layers read, is the float one's.

    `bias_correction` matches means before the activation function. Errors that the function cuts off count there too,
    and what is left is not free of bias: rounding noise around the corner of a ReLU raises the mean behind it. Where no
    clip follows a layer, or something else reads its output too, the two are the same; see there for the order.

    Args:
        graph: quantised; its biases are changed, and a layer without one gets one.
        reference: the float graph that it was made of.
        data: calibration data.

    Returns:
        The places whose bias was changed.

    Raises:
        PenjingError: there is no data, or no layer with few-bit weights.
    """
    return match_means(graph, reference, data, _bounds)


def _bounds(layer: Layer) -> Interval:
    readers = list(layer.node.users)
    if len(readers) != 1 or readers[0].target not in CLIPS:
        return EVERYTHING
    return CLIPS[readers[0].target](readers[0]) or EVERYTHING
