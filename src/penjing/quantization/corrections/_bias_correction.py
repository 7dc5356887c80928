"""The mean error of each channel, taken out of the bias."""

from typing import Any

from penjing.graph import Graph
from penjing.graph.clips import EVERYTHING
from penjing.quantization.corrections._means import match_means
from penjing.quantization.corrections._registry import corrections


@corrections.register(
    source="Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.2 and "
    "appendix D, arXiv:1906.04721",
    needs=("data",),
    stage="quantized",
)
def bias_correction(graph: Graph, reference: Graph, data: Any) -> tuple[str, ...]:
    """Adds to each bias what rounding took from its channel's mean: E[output in floats] − E[output when quantised].

    The paper's empirical procedure corrects one layer after the other, each with a pass over the data through a network
    that is corrected up to there. Here both networks run side by side, in one pass: a layer's correction is the mean
    difference over the batches so far, this one among them, and is applied before the next layer runs. With one batch
    this is the paper's procedure exactly; with several, the first ones saw the layers before corrected by what was known
    then, and the effect of that falls as batches come in.

    Args:
        graph: quantised; its biases are changed, and a layer without one gets one.
        reference: the float graph that it was made of.
        data: calibration data.

    Returns:
        The places whose bias was changed.

    Raises:
        PenjingError: there is no data, or no layer with few-bit weights.
    """
    return match_means(graph, reference, data, lambda layer: EVERYTHING)
