"""Mean and variance of each channel, brought back to what they were."""

from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.straight_through import ops
from penjing.quantize.corrections._bias import add_to_biases
from penjing.quantize.corrections._registry import corrections
from penjing.quantize.corrections._side_by_side import Layer, quantized_layers, side_by_side

aten = torch.ops.aten
# Below this share of the layer's mean variance a channel is (almost) constant: its gain would be a quotient of noise.
SMALLEST_VARIANCE = 1e-4


@corrections.register(
    source="Sun et al. 2019, Hybrid 8-bit Floating Point (HFP8) Training and Inference for Deep Neural Networks (batch "
    "norms re-tuned for inference); Nagel et al. 2022, Overcoming Oscillations in Quantization-Aware Training, section "
    "4.1, arXiv:2203.11086 (statistics re-estimated)",
    needs=("data",),
    stage="quantized",
)
def batch_norm_statistics(graph: Graph, reference: Graph, data: Any) -> tuple[str, ...]:
    """Gives each channel of each layer the mean and the variance that it has in the float network.

    That is what re-estimating a batch norm's statistics behind the rounded layer and folding it again does, where the
    statistics of the float network on the calibration data stand in for its β and γ. The integers stay: the gain goes
    into the weight and its scale alike, so it needs one scale per output channel. The networks run side by side, as in
    `bias_correction`.

    Args:
        graph: quantised; its weights, scales and biases are changed, and a layer without bias gets one.
        reference: the float graph that it was made of.
        data: calibration data.

    Returns:
        The places that were changed.

    Raises:
        PenjingError: there is no data; a layer's weights are rounded to a grid that has no scale for each output channel,
            or are shared with another layer.
    """
    scales = {layer.node.name: _scale_of(graph, layer) for layer in quantized_layers(graph)}
    moments: dict[str, tuple[_Moments, _Moments]] = {}

    def remember(layer: Layer, output: Tensor) -> _Moments:
        return _Moments.of(layer, output)

    def correct(layer: Layer, output: Tensor, wanted: _Moments) -> Tensor:
        got = _Moments.of(layer, output)
        before = moments.get(layer.node.name)
        moments[layer.node.name] = (
            (wanted, got) if before is None else (before[0].joined(wanted), before[1].joined(got))
        )
        gain, shift = _gain_and_shift(*moments[layer.node.name])
        return output * layer.along(gain, output) + layer.along(shift, output)

    side_by_side(graph, reference, data, remember, correct)
    changed = []
    for layer in quantized_layers(graph):
        gain, shift = _gain_and_shift(*moments[layer.node.name])
        with torch.no_grad():
            for path in (layer.weight, scales[layer.node.name], layer.bias):
                tensor = None if path is None else graph.tensor(path)
                if tensor is not None and tensor.dtype.is_floating_point:  # codes stay
                    tensor *= gain.to(tensor).reshape(-1, *[1] * (tensor.dim() - 1))
        add_to_biases(graph, [layer], shift)
        changed.append(layer.place)
    graph.refresh()
    return tuple(changed)


class _Moments:
    """Count, mean and variance of each channel."""

    def __init__(self, count: int, mean: Tensor, variance: Tensor) -> None:
        self.count, self.mean, self.variance = count, mean, variance

    @classmethod
    def of(cls, layer: Layer, output: Tensor) -> "_Moments":
        mean = layer.mean(output)
        variance = layer.mean((output - layer.along(mean, output)).square_())
        return cls(output.numel() // len(mean), mean, variance)

    def joined(self, other: "_Moments") -> "_Moments":
        """Returns the moments of both samples together (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        share = other.count / count
        apart = other.mean - self.mean
        mean = self.mean + share * apart
        variance = (1 - share) * self.variance + share * other.variance + share * (1 - share) * apart.square()
        return _Moments(count, mean, variance)


def _gain_and_shift(wanted: _Moments, got: _Moments) -> tuple[Tensor, Tensor]:
    varies = (wanted.variance.minimum(got.variance)) > SMALLEST_VARIANCE * wanted.variance.mean()
    gain = torch.where(varies, (wanted.variance / got.variance).sqrt(), 1.0)
    return gain, wanted.mean - gain * got.mean


def _scale_of(graph: Graph, layer: Layer) -> str:
    """Returns the path of the scales of a layer's rounded weight, one for each output channel or several."""
    restore: Any = layer.node.args[1]
    while restore.target is aten.reshape.default:
        restore = restore.args[0]
    per_channel = restore.target is ops.dequantize_per_channel.default and restore.args[3] == 0
    scale = restore.args[1] if per_channel or restore.target is ops.dequantize_per_channel_group.default else None
    if not isinstance(scale, fx.Node) or scale.op != "get_attr":
        raise PenjingError(
            f"batch_norm_statistics needs weights with a scale for each output channel, and '{layer.place}' has none; "
            "use bias_correction, or grain='channel'."
        )
    if bool((torch.frexp(graph.tensor(str(scale.target))).mantissa == 0.5).all()):
        raise PenjingError(
            f"The weight's scales of '{layer.place}' are powers of two, and the gains of batch_norm_statistics would "
            "change that; use bias_correction."
        )
    others = [other.place for other in quantized_layers(graph) if other.weight == layer.weight and other != layer]
    shared = others or (len(_users(graph, layer.bias)) > 1 and layer.bias)
    if shared:
        raise PenjingError(
            f"The weight or bias of '{layer.place}' is used more than once, so batch_norm_statistics can't give each use "
            "its own gain; use bias_correction."
        )
    return str(scale.target)


def _users(graph: Graph, path: str | None) -> list[fx.Node]:
    nodes = graph.program.graph.nodes
    return [user for node in nodes if node.op == "get_attr" and node.target == path for user in node.users]
