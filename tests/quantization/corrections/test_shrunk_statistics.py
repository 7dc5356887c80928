"""The default correction: what few samples tell of means and variances, and no more than that."""

import functools
import math

import pytest
import small_networks as nets
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.errors import PenjingError
from penjing.graph import Graph, capture
from penjing.quantization import quantize
from penjing.quantization.corrections import SAMPLES
from penjing.quantization.corrections._shrunk_statistics import _shares, _shrunk
from penjing.report import words

INT3 = {"weights": "int3", "simulate": True}


class Mobile(nn.Module):
    """Few weights per channel, and inputs far from 0 in the mean: rounding the weights moves the mean of the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(8, 16, 1, bias=False)
        self.filter = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.narrow = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(F.relu6(self.filter(F.relu6(self.widen(x)))))
        return self.head(F.adaptive_avg_pool2d(F.relu(y + x), 1).flatten(1))


def _images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 8, 8, 8, generator=torch.Generator().manual_seed(seed)) + 1


@functools.cache  # no test changes it
def _graph(network: type[nn.Module] = Mobile) -> Graph:
    torch.manual_seed(0)
    return capture(network().eval(), torch.randn(2, 8, 8, 8))


def _error(small: Graph, graph: Graph | None = None) -> float:
    x = _images(64, seed=2)
    with torch.no_grad():
        return float(F.mse_loss(small(x), (graph or _graph())(x)))


def _same(one: Graph, other: Graph) -> bool:
    tensors = other.tensors()
    return one.program.code == other.program.code and all(
        torch.equal(tensor, tensors[path]) for path, tensor in one.tensors().items()
    )


# What it is good for


@pytest.mark.parametrize("settings", [{}, {"weights": "ternary", "grain": "channel"}, {"weights": "codebook:4"}])
def test_it_lowers_the_error_of_a_network_that_needs_it(settings):
    plain, corrected = (
        quantize(_graph(), [_images(48)], **{**INT3, **settings}, **c) for c in ({"corrections": ()}, {})
    )
    assert _error(corrected) < 0.5 * _error(plain)


@pytest.mark.parametrize("network", nets.NETWORKS)
def test_it_helps_or_does_nothing_in_every_network(network):
    graph, settings = _graph(network), {"weights": "int4", "simulate": True}
    plain, corrected = (
        quantize(graph, [_images(16), _images(16, 3)], **settings, **c) for c in ({"corrections": ()}, {})
    )
    assert _error(corrected, graph) <= _error(plain, graph)


# What it leaves alone


def test_weights_that_lie_on_the_grid_stay_and_get_no_bias():
    net = Mobile()
    with torch.no_grad():
        for weight in (net.widen.weight, net.filter.weight, net.narrow.weight, net.head.weight):
            weight.copy_(torch.randint(-127, 128, weight.shape, generator=torch.Generator().manual_seed(0)) / 64)
            weight.flatten(1)[:, 0] = 127 / 64
    graph = capture(net.eval(), torch.randn(2, 8, 8, 8))
    plain, corrected = (quantize(graph, [_images(16)], activations=None, **c) for c in ({"corrections": ()}, {}))
    assert _same(plain, corrected) and not any(step.found for step in (*plain.plan, *corrected.plan))


@pytest.mark.parametrize("count", [1, 15])
def test_too_few_samples_correct_nothing(count):
    plain, corrected = (quantize(_graph(), [_images(count)], **INT3, **c) for c in ({"corrections": ()}, {}))
    assert _same(plain, corrected)
    assert not any("corrected" in words(step.to_json()) for step in corrected.plan)


def test_a_weight_that_two_layers_read_stays():
    plain, corrected = (quantize(_graph(nets.Shared), [_images(16)], **c) for c in ({"corrections": ()}, {}))
    assert _same(plain, corrected)


@pytest.mark.parametrize("settings", [{"grain": "tensor"}, {"weights": "power_of_two:4"}])
def test_grids_without_a_scale_for_each_channel_get_means_alone_and_the_plan_says_so(settings):
    small = quantize(_graph(), [_images(16)], **{**INT3, **settings})
    assert all(words(step.to_json()).endswith(", mean corrected") for step in small.plan)
    plain = quantize(_graph(), [_images(16)], **{**INT3, **settings}, corrections=())
    assert torch.equal(small.tensor("widen.weight"), plain.tensor("widen.weight"))
    assert not torch.equal(small.tensor("narrow.bias"), plain.tensor("narrow.bias"))


# Data


def test_data_that_can_be_read_once_only_is_enough_and_gives_the_same():
    batches = [_images(4, seed) for seed in range(12)]
    listed, streamed = (quantize(_graph(), given, **INT3) for given in (batches, iter(batches)))
    assert _same(listed, streamed)


@pytest.mark.parametrize("activations", [None, "uint8"])
def test_only_so_many_samples_are_looked_at(activations):
    first, second = _images(SAMPLES - 4), _images(4, 2)
    some, more = (
        quantize(_graph(), [first, rest], activations=activations, **INT3)
        for rest in (second, torch.cat([second, torch.zeros(4, 8, 8, 8)]))  # zeros widen no range
    )
    assert _same(some, more)


def test_for_weights_alone_no_more_batches_are_read_than_are_looked_at():
    read = []

    def stream():
        for seed in range(100):
            read.append(seed)
            yield _images(8, seed)

    quantize(_graph(), stream(), activations=None, **INT3)
    assert len(read) == math.ceil(SAMPLES / 8)


def test_values_that_arent_finite_name_their_layer():
    images = _images(16)
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(PenjingError, match="'widen' holds NaN"):
        quantize(_graph(), [images], activations=None)


def test_a_single_name_may_stand_for_itself():
    one, several = (quantize(_graph(), [_images(16)], corrections=c) for c in ("bias_correction", ["bias_correction"]))
    assert _same(one, several)


# The estimates


@pytest.mark.parametrize("count", [4, 8, 32])
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 3.0])
def test_what_is_shrunk_is_nearer_to_the_truth_than_the_estimate_and_than_nothing(spread, count):
    generator = torch.Generator().manual_seed(0)
    truth = spread * torch.randn(500, generator=generator, dtype=torch.float64)
    noise = math.sqrt(count) * torch.randn(count, 500, generator=generator, dtype=torch.float64)  # the mean's error: 1
    shrunk, taken, nothing = (
        float((estimate - truth).square().mean()) for estimate in (_shrunk(truth + noise), (truth + noise).mean(0), 0)
    )
    assert shrunk < 1.25 * min(taken, nothing) + 0.05


def test_what_is_sure_is_kept_and_noise_alone_is_not():
    generator = torch.Generator().manual_seed(0)
    truth, noisy = torch.randn(10, 500, generator=generator, dtype=torch.float64).split([1, 9])
    torch.testing.assert_close(_shrunk(truth.expand(9, -1)), truth[0])
    assert not _shrunk(noisy - noisy.mean(0)).any()


def test_the_influences_give_the_jackknifes_error_of_a_ratio_of_deviations():
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(40, 30, 6, generator=generator, dtype=torch.float64)  # samples, positions, channels
    got = 1.1 * wanted + 0.2 * torch.randn(40, 30, 6, generator=generator, dtype=torch.float64)

    def logarithm(samples: list[int]) -> Tensor:
        return (wanted[samples].flatten(0, 1).var(0, False) / got[samples].flatten(0, 1).var(0, False)).log() / 2

    left_out = torch.stack([logarithm([k for k in range(40) if k != out]) for out in range(40)])
    expected = 39 / 40 * (left_out - left_out.mean(0)).square().sum(0)
    shares = [_shares(torch.stack([x.mean(1), x.var(1, False)]))[1] for x in (wanted, got)]
    torch.testing.assert_close(((shares[0] - shares[1]) / 2).var(0) / 40, expected, rtol=0.1, atol=0)
