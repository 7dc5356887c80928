"""`corrections="auto"`: restores means and variances of channels as far as a few samples allow.

`batch_norm_statistics` trusts its estimates fully, which takes some hundred samples: with few, it does harm. Here every
estimate is shrunk in proportion to its uncertainty, so that a few samples correct only the errors that they show
clearly.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from penjing.evidence.observation import not_finite
from penjing.evidence.pieces import sample_count
from penjing.graph import Graph
from penjing.quantization.calibration.noise import Noise
from penjing.quantization.corrections._batch_norm_statistics import SMALLEST_VARIANCE
from penjing.quantization.corrections._bias import add_to_biases
from penjing.quantization.corrections._gain import apply_gain, are_powers_of_two, scale_of
from penjing.quantization.corrections._side_by_side import RoundedLayer, free_layers, side_by_side

SAMPLES = 40  # EfficientNet-Lite0: 23.2 dB with 32, 23.6 with 40, 23.9 with 48 and with 64; each sample takes 70 ms
# Samples. With fewer, most of them ran before the corrections of earlier layers settled: on EfficientNet-Lite0 four samples
# lose 3 dB, sixteen gain 2 dB.
FEWEST = 16


def shrunk_statistics(
    graph: Graph, reference: Graph, batches: Iterable[list[Tensor]], noise: Noise | None = None
) -> dict[str, str]:
    """Gives each channel the mean and, where its weights' grid takes a gain, the variance that it has in the float network.

    Both differences are estimated from the samples, with standard errors se, and each is multiplied by τ² / (τ² + se²):
    the empirical Bayes rule of Efron and Morris 1973, Stein's Estimation Rule and Its Competitors. The layer's channels
    are the ensemble, and τ² comes from the method of moments. The difference of two variances is that of half their
    logarithms; its standard error comes from the influence of each sample (Efron 1982, The Jackknife, the Bootstrap and
    Other Resampling Plans, chapter 6). Standard errors from n samples are estimates themselves: se² is multiplied by
    the variance of Student's t, (n - 1) / (n - 3). The networks run side by side, as in `bias_correction`. With fewer than
    16 samples nothing is corrected.

    Layers whose weight or bias is read elsewhere, too, stay as they are.

    Args:
        graph: the quantised graph; its weights, scales and biases are changed, and a layer without a bias gets one.
        reference: the float graph that `graph` was made from.
        batches: batches of flat inputs; a few numbers are kept for each sample and channel.
        noise: takes in every layer's outputs in both graphs on the way; None measures no noise.

    Returns:
        By place, the corrected statistics: "mean" or "mean and variance".

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

    def remember(layer: RoundedLayer, output: Tensor) -> Tensor:
        return _moments(layer, output, samples)

    def correct(layer: RoundedLayer, output: Tensor, wanted: Tensor) -> Tensor:
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


def _gainable(graph: Graph, layer: RoundedLayer) -> str | None:
    """Returns the path of the scales that can take a gain; None where the grid has no such scales."""
    scale = scale_of(graph, layer)
    return None if scale is None or are_powers_of_two(graph.tensor(scale)) else scale


def _moments(layer: RoundedLayer, output: Tensor, samples: int) -> Tensor:
    """Returns the mean and the variance of each sample's channels, `(2, samples, channels)`.

    Where the length of the first axis is no multiple of the number of samples, the whole batch counts as one sample.
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
        """Adds the moments of the float and of the quantised output for one batch, `(2, samples, channels)` each."""
        self._wanted.append(wanted)
        self._got.append(got)

    def gain_and_shift(self, with_gain: bool) -> tuple[Tensor, Tensor]:
        """Returns the factor of each channel and the shift to add then, `(channels,)` float64 each."""
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
    """Returns the variance over all samples, `(channels,)`, and each sample's share in the variance, 1 on average."""
    apart = moments[1] + (moments[0] - moments[0].mean(0)).square()
    variance = apart.mean(0)
    return variance, apart / variance


def _shrunk(samples: Tensor, estimate: Tensor | None = None) -> Tensor:
    """Returns estimates, `(channels,)`, shrunk towards 0 by τ² / (τ² + se²), with τ² from the spread of the channels.

    Args:
        samples: `(samples, channels)`; the standard error of their mean is that of the estimate.
        estimate: `(channels,)`; the samples' mean by default.
    """
    count = len(samples)
    estimate = samples.mean(0) if estimate is None else estimate
    if count <= 3:
        return torch.zeros_like(estimate)
    error = samples.var(0) / count
    prior = (estimate.square() - error).mean().clamp_min(0)
    widened = error * (count - 1) / (count - 3)  # variance of Student's t, since the error is an estimate, too
    return torch.where(prior > 0, prior / (prior + widened), 0.0) * estimate
