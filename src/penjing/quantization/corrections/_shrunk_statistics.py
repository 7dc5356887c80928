"""What `corrections="auto"` does: means and variances brought back as far as a few samples tell them.

`batch_norm_statistics` takes what it estimates for the truth, which needs some hundred samples: with few, it does harm. Here
every estimate is shrunk by its own uncertainty, so that few samples correct what they are sure of.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from penjing.evidence.observation import not_finite
from penjing.evidence.pieces import sample_count
from penjing.graph import Graph
from penjing.quantization._noise import Noise
from penjing.quantization.corrections._batch_norm_statistics import SMALLEST_VARIANCE
from penjing.quantization.corrections._bias import add_to_biases
from penjing.quantization.corrections._gain import apply_gain, are_powers_of_two, scale_of
from penjing.quantization.corrections._side_by_side import Layer, free_layers, side_by_side

SAMPLES = 40  # EfficientNet-Lite0: 23.2 dB with 32, 23.6 with 40, 23.9 with 48 and with 64, at 70 ms each
# With fewer, most of them passed before the layers in front were corrected as they are in the end: on EfficientNet-Lite0
# four samples take 3 dB away, sixteen add 2 dB.
FEWEST = 16


def shrunk_statistics(
    graph: Graph, reference: Graph, batches: Iterable[list[Tensor]], noise: Noise | None = None
) -> dict[str, str]:
    """Gives each channel the mean and, where its weights' grid takes a gain, the variance that it has in the float network.

    Both differences are estimated with the standard errors that they have over the samples, and multiplied by τ² / (τ² + se²)
    each: the empirical Bayes rule of Efron and Morris 1973, Stein's Estimation Rule and Its Competitors, with the layer's
    channels as the ensemble and its τ² by the method of moments. Differences of variances are those of their logarithms'
    halves, with standard errors from the influence of each sample (Efron 1982, The Jackknife, the Bootstrap and Other
    Resampling Plans, chapter 6). Standard errors from n samples are estimates themselves: they are widened by the variance
    of Student's t, (n - 1) / (n - 3). The networks run side by side, as in `bias_correction`. Fewer than 16 samples correct
    nothing.

    Layers whose weight or bias something else reads, too, stay as they are.

    Args:
        graph: quantised; its weights, scales and biases are changed, and a layer without bias gets one.
        reference: the float graph that it was made of.
        batches: of flat inputs; some numbers are kept for each sample and channel.
        noise: is shown every layer's outputs in both graphs on the way, where it is given.

    Returns:
        What was corrected by place, "mean" or "mean and variance".

    Raises:
        PenjingError: an output that isn't finite.
    """
    batches = list(batches)
    if sum(map(sample_count, batches)) < FEWEST:
        return {}
    layers = free_layers(graph)
    scales = {layer.node.name: _gainable(graph, layer) for layer in layers}
    seen = {layer.node.name: _Seen() for layer in layers}
    samples = 0

    def remember(layer: Layer, output: Tensor) -> Tensor:
        return _moments(layer, output, samples)

    def correct(layer: Layer, output: Tensor, wanted: Tensor) -> Tensor:
        name = layer.node.name
        seen[name].add(wanted, _moments(layer, output, samples))
        gain, shift = seen[name].gain_and_shift(scales[name] is not None)
        return output.mul_(layer.along(gain, output)).add_(layer.along(shift, output))

    def counted() -> Iterable[list[Tensor]]:
        nonlocal samples
        for batch in batches:
            samples = sample_count(batch)
            yield batch

    side_by_side(graph, reference, counted(), layers, remember, correct, noise)
    corrected = {}
    for layer in layers:
        scale = scales[layer.node.name]
        gain, shift = seen[layer.node.name].gain_and_shift(scale is not None)
        if not (gain.log().any() or shift.any()):
            continue
        if scale is not None:
            apply_gain(graph, layer, scale, gain)
        add_to_biases(graph, [layer], shift)
        corrected[layer.place] = "mean" if scale is None else "mean and variance"
    graph.refresh(shapes_known=True)
    return corrected


def _gainable(graph: Graph, layer: Layer) -> str | None:
    """Returns the path of the scales that take a gain, None where the grid has none."""
    scale = scale_of(graph, layer)
    return None if scale is None or are_powers_of_two(graph.tensor(scale)) else scale


def _moments(layer: Layer, output: Tensor, samples: int) -> Tensor:
    """Returns mean and variance of each sample's channels, `(2, samples, channels)`.

    Where the first axis isn't the samples', nor several parts of each, all of them together count as one.
    """
    values = output.movedim(layer.axis, -1)
    values = values.reshape(samples if len(output) % samples == 0 else 1, -1, values.shape[-1])
    mean = values.mean(1)
    if not bool(mean.isfinite().all()):
        raise not_finite(layer.place)
    return torch.stack([mean, (values - mean[:, None]).square_().mean(1)])


class _Seen:
    """The moments of a layer's output in both networks, on the samples so far."""

    def __init__(self) -> None:
        self._wanted: list[Tensor] = []
        self._got: list[Tensor] = []

    def add(self, wanted: Tensor, got: Tensor) -> None:
        """Takes in what the float and the quantised network gave, `(2, samples, channels)`."""
        self._wanted.append(wanted)
        self._got.append(got)

    def gain_and_shift(self, with_gain: bool) -> tuple[Tensor, Tensor]:
        """Returns what each channel is to be multiplied with, and what is then to be added, `(channels,)` float64."""
        wanted, got = (torch.cat(moments, 1).double() for moments in (self._wanted, self._got))
        mean = got[0].mean(0)
        variances = [_shares(moments) for moments in (wanted, got)]
        (wanted_variance, wanted_shares), (got_variance, got_shares) = variances
        smallest = SMALLEST_VARIANCE * wanted_variance.mean()
        unit = wanted_variance.clamp_min(smallest).sqrt()
        unit = unit.where(unit > 0, 1.0)
        difference = _shrunk((wanted[0] - got[0]) / unit) * unit
        if not with_gain:
            return torch.ones_like(mean), difference
        varies = wanted_variance.minimum(got_variance) > smallest
        logarithm = torch.where(varies, (wanted_variance / got_variance).log() / 2, 0.0)
        influence = torch.where(varies, (wanted_shares - got_shares) / 2, 0.0)
        gain = _shrunk(influence, logarithm).exp()
        return gain, mean * (1 - gain) + difference


def _shares(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the variance of all samples together, `(channels,)`, and each sample's share in it, 1 on average."""
    apart = moments[1] + (moments[0] - moments[0].mean(0)).square()
    variance = apart.mean(0)
    return variance, apart / variance


def _shrunk(samples: Tensor, estimate: Tensor | None = None) -> Tensor:
    """Returns estimates, `(channels,)`, shrunk to 0 by what the channels' spread and their errors say.

    Args:
        samples: `(samples, channels)`, whose mean's error is the estimate's.
        estimate: their mean by default.
    """
    count = len(samples)
    estimate = samples.mean(0) if estimate is None else estimate
    if count <= 3:
        return torch.zeros_like(estimate)
    error = samples.var(0) / count
    prior = (estimate.square() - error).mean().clamp_min(0)
    widened = error * (count - 1) / (count - 3)  # Student's t: the error is an estimate, too
    return torch.where(prior > 0, prior / (prior + widened), 0.0) * estimate
