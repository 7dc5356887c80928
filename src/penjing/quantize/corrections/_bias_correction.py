"""The mean error of each channel, taken out of the bias."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from penjing.graph import Graph
from penjing.quantize.corrections._bias import set_bias
from penjing.quantize.corrections._registry import corrections
from penjing.quantize.corrections._side_by_side import Layer, quantized_layers, side_by_side


@corrections.register(
    source="Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.2 and "
    "appendix D (empirical), arXiv:1906.04721",
    needs=("data",),
    stage="quantized",
)
def bias_correction(graph: Graph, reference: Graph, data: Any) -> tuple[str, ...]:
    """Adds to each bias what rounding took from the mean of the channel: E[float output] − E[quantised output].

    The paper corrects one layer after the other, each with a pass over the data with all layers before it corrected.
    Here both networks run side by side in one pass: a layer's correction is the mean difference over the batches so
    far, this one among them, and is applied before the next layer runs. With one batch this is the paper's procedure;
    with several, the first batches saw the earlier layers corrected by what was known then, an error that falls with
    the number of batches.

    Args:
        graph: quantised; its biases are changed, and added where a layer has none.
        reference: the float graph that it was made of.
        data: calibration data.

    Returns:
        The places whose bias was changed.
    """
    estimates: dict[str, _MeanError] = defaultdict(_MeanError)  # layers that share a bias share its correction

    def correct(layer: Layer, output: Tensor, wanted: Tensor) -> Tensor:
        estimate = estimates[layer.bias or layer.weight]
        estimate.update(wanted, _mean(layer, output), output.numel() // len(wanted))
        return output + _along(estimate.value.to(output.dtype), layer, output)

    side_by_side(graph, reference, data, _mean, correct)
    places = {}
    for layer in quantized_layers(graph):
        key = layer.bias or layer.weight
        if key in estimates:
            set_bias(graph, layer, estimates[key].value)
        ...
    return tuple(places)
