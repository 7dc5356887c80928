"""Restores the mean and the variance that each channel has in the float network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.evidence.reader import flat_batches
from penjing.graph import Graph
from penjing.quantization.corrections._bias import add_to_biases
from penjing.quantization.corrections._gain import apply_gain, are_powers_of_two, scale_of
from penjing.quantization.corrections._registry import corrections
from penjing.quantization.corrections._side_by_side import RoundedLayer, quantized_layers, side_by_side

# Share of the layer's mean variance. A channel with less is almost constant: its gain would be a quotient of noise.
SMALLEST_VARIANCE = 1e-4


@corrections.register(
    source="Sun et al. 2019, Hybrid 8-bit Floating Point (HFP8) Training and Inference for Deep Neural Networks (batch "
    "norms re-tuned for inference); Nagel et al. 2022, Overcoming Oscillations in Quantization-Aware Training, section "
    "4.1, arXiv:2203.11086 (statistics re-estimated)",
    needs={"data"},
    stage="quantized",
)
def batch_norm_statistics(graph: Graph, reference: Graph, data: Any) -> tuple[str, ...]:
    """Gives each channel of each layer the mean and the variance that it has in the float network.

    The effect is that of re-estimating a batch norm's statistics behind the rounded layer and folding the batch norm
    again, with the float network's statistics on the calibration data in place of β and γ. The integers stay: the gain
    multiplies the weight and its scale alike, so the weight needs one scale per output channel. The networks run side
    by side, as in `bias_correction`.

    Args:
        graph: the quantised graph; its weights, scales and biases are changed, and a layer without a bias gets one.
        reference: the float graph that `graph` was made from.
        data: calibration data.

    Returns:
        The places of the layers that were changed.

    Raises:
        PenjingError: there is no data; a layer's weights are rounded to a grid that has no scale for each output channel,
            or are shared with another layer.
    """
    layers = quantized_layers(graph)
    scales = {layer.node.name: _scale_of(graph, layer, layers) for layer in layers}
    moments: dict[str, tuple[_ChannelMoments, _ChannelMoments]] = {}

    def remember(layer: RoundedLayer, output: Tensor) -> _ChannelMoments:
        return _ChannelMoments.of(layer, output)

    def correct(layer: RoundedLayer, output: Tensor, wanted: _ChannelMoments) -> Tensor:
        got = _ChannelMoments.of(layer, output)
        before = moments.get(layer.node.name)
        moments[layer.node.name] = (
            (wanted, got) if before is None else (before[0].joined(wanted), before[1].joined(got))
        )
        gain, shift = _gain_and_shift(*moments[layer.node.name])
        return output * layer.along(gain, output) + layer.along(shift, output)

    side_by_side(graph, reference, flat_batches(reference, data), layers, remember, correct)
    for layer in layers:
        gain, shift = _gain_and_shift(*moments[layer.node.name])
        apply_gain(graph, layer, scales[layer.node.name], gain)
        add_to_biases(graph, [layer], shift)
    graph.refresh()
    return tuple(layer.place for layer in layers)


class _ChannelMoments:
    """The count, the mean and the variance of each channel's values."""

    def __init__(self, count: int, mean: Tensor, variance: Tensor) -> None:
        self.count, self.mean, self.variance = count, mean, variance

    @classmethod
    def of(cls, layer: RoundedLayer, output: Tensor) -> "_ChannelMoments":
        mean = layer.mean(output)
        variance = layer.mean((output - layer.along(mean, output)).square_())
        return cls(output.numel() // len(mean), mean, variance)

    def joined(self, other: "_ChannelMoments") -> "_ChannelMoments":
        """Returns the moments of both samples together (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        share = other.count / count
        apart = other.mean - self.mean
        mean = self.mean + share * apart
        variance = (1 - share) * self.variance + share * other.variance + share * (1 - share) * apart.square()
        return _ChannelMoments(count, mean, variance)


def _gain_and_shift(wanted: _ChannelMoments, got: _ChannelMoments) -> tuple[Tensor, Tensor]:
    varies = (wanted.variance.minimum(got.variance)) > SMALLEST_VARIANCE * wanted.variance.mean()
    gain = torch.where(varies, (wanted.variance / got.variance).sqrt(), 1.0)
    return gain, wanted.mean - gain * got.mean


def _scale_of(graph: Graph, layer: RoundedLayer, layers: Sequence[RoundedLayer]) -> str:
    scale = scale_of(graph, layer)
    if scale is None:
        raise PenjingError(
            f"batch_norm_statistics needs weights with a scale for each output channel, and '{layer.place}' has none; "
            "use bias_correction, or grain='channel'."
        )
    if are_powers_of_two(graph.tensor(scale)):
        raise PenjingError(
            f"The weight's scales of '{layer.place}' are powers of two, and the gains of batch_norm_statistics would "
            "change that; use bias_correction."
        )
    others = [other.place for other in layers if other.weight == layer.weight and other != layer]
    shared = others or (len(_users(graph, layer.bias)) > 1 and layer.bias)
    if shared:
        raise PenjingError(
            f"The weight or bias of '{layer.place}' is used more than once, so batch_norm_statistics can't give each use "
            "its own gain; use bias_correction."
        )
    return scale


def _users(graph: Graph, path: str | None) -> list[fx.Node]:
    nodes = graph.program.graph.nodes
    return [user for node in nodes if node.op == "get_attr" and node.target == path for user in node.users]
