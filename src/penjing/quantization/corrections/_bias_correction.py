"""Corrects the mean of each channel by the layer's bias."""

from typing import Any

from penjing.graph import Graph
from penjing.graph.clips import EVERYTHING
from penjing.quantization.corrections._means import match_means
from penjing.quantization.corrections._registry import corrections


@corrections.register(
    source="Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.2 and "
    "appendix D, arXiv:1906.04721",
    needs={"data"},
    stage="quantized",
)
def bias_correction(graph: Graph, reference: Graph, data: Any) -> tuple[str, ...]:
    """Adds to each bias the loss of its channel's mean by rounding: E[output in floats] − E[output when quantised].

    The paper's empirical procedure corrects one layer after another, each with a pass over the data through a network
    in which all layers before are corrected. Here both networks run side by side, in one pass: a layer's correction is
    the mean difference over all batches so far, the current one included, and is applied before the next layer runs.
    With one batch this is exactly the paper's procedure. With several, the first batches went through layers whose
    corrections were not yet final; the effect of that falls with the number of batches.

    Args:
        graph: the quantised graph; its biases are changed, and a layer without a bias gets one.
        reference: the float graph that `graph` was made from.
        data: calibration data.

    Returns:
        The places of the layers whose bias was changed.

    Raises:
        PenjingError: there is no data, or no layer with few-bit weights.
    """
    return match_means(graph, reference, data, lambda layer: EVERYTHING)
