"""Corrects the mean behind each activation function by the bias of the layer before it."""

from typing import Any

from penjing.graph import Graph
from penjing.graph.clips import CLIPS, EVERYTHING, Interval
from penjing.quantization.corrections._means import match_means
from penjing.quantization.corrections._registry import corrections
from penjing.quantization.corrections._side_by_side import RoundedLayer


@corrections.register(
    source="Nagel et al. 2019, section 4.2, arXiv:1906.04721, with the means taken behind the clip; solved as in Robbins "
    "and Monro 1951, A Stochastic Approximation Method",
    needs={"data"},
    stage="quantized",
)
def activation_correction(graph: Graph, reference: Graph, data: Any) -> tuple[str, ...]:
    """Changes each bias so that the mean behind the layer's ReLU or clip, which the next layers read, is that in floats.

    `bias_correction` matches means before the activation function. That counts errors that the function cuts off, and
    it leaves a bias: rounding noise around the corner of a ReLU raises the mean behind the ReLU. Where no clip follows
    a layer, or other ops read the layer's output too, both corrections are the same. Layers are corrected in the order
    that `bias_correction` describes.

    Args:
        graph: the quantised graph; its biases are changed, and a layer without a bias gets one.
        reference: the float graph that `graph` was made from.
        data: calibration data.

    Returns:
        The places of the layers whose bias was changed.

    Raises:
        PenjingError: there is no data, or no layer with few-bit weights.
    """
    return match_means(graph, reference, data, _bounds)


def _bounds(layer: RoundedLayer) -> Interval:
    readers = list(layer.node.users)
    if len(readers) != 1 or readers[0].target not in CLIPS:
        return EVERYTHING
    return CLIPS[readers[0].target](readers[0]) or EVERYTHING
