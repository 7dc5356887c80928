"""The noise of single layers, against quantising them alone."""

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.quantization import quantize, sensitivity


class Net(nn.Module):
    """Two convolutions with a pool between, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Conv2d(8, 12, 3, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(self.first(x), 2)
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return pj.capture(Net().eval(), torch.randn(2, 3, 8, 8))


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 3, 8, 8, generator=generator) for _ in range(3)]


def power(one, other, batches):
    with torch.no_grad():
        error = sum(float((one(x) - other(x)).double().square().sum()) for x in batches)
        return error / sum(float(one(x).double().square().sum()) for x in batches)


def test_the_noise_of_a_layer_is_that_of_the_network_with_all_others_excluded(graph, batches):
    layers = ["first.0", "second", "head"]
    noise = sensitivity(graph, batches, ["int3"], samples=10**6, activations=None)
    assert list(noise) == layers
    for layer in layers:
        others = [other for other in layers if other != layer]
        alone = quantize(graph, weights="int3", activations=None, exclude=others, corrections=())
        assert noise[layer]["int3"] == pytest.approx(power(graph, alone, batches), rel=1e-3)


def test_what_a_layer_reads_is_rounded_with_it():
    torch.manual_seed(0)
    line, batches = pj.capture(nn.Linear(12, 5), torch.randn(2, 12)), [torch.randn(64, 12)]
    noise = sensitivity(line, batches, ["int8"])
    (found,) = noise.values()
    assert found["int8"] == pytest.approx(power(line, quantize(line, batches, corrections=()), batches), rel=1e-3)
    (without,) = sensitivity(line, batches, ["int8"], activations=None).values()
    assert found["int8"] > 1.5 * without["int8"]


def test_the_noises_of_the_layers_add_up_to_about_that_of_the_network(graph, batches):
    noise = sensitivity(graph, batches, ["int6"], samples=10**6, activations=None)
    whole = power(graph, quantize(graph, weights="int6", activations=None, corrections=()), batches)
    assert sum(found["int6"] for found in noise.values()) == pytest.approx(whole, rel=0.7)


def test_only_as_many_samples_are_judged_as_asked_for(graph, batches):
    some = sensitivity(graph, batches, ["int4"], samples=16, activations=None)
    same = sensitivity(graph, [batches[0], 100 * batches[1]], ["int4"], samples=16, activations=None)
    assert some == same
    assert some != sensitivity(graph, batches, ["int4"], samples=17, activations=None)


def test_a_layer_with_a_grid_of_its_own_has_the_same_noise_whatever_is_compared(graph, batches):
    noise = sensitivity(graph, batches, ["int2", "int8"], per_layer={"second": "int4"}, exclude=["head"])
    assert noise.keys() == {"first.0", "second"}
    assert noise["second"]["int2"] == noise["second"]["int8"]
    assert noise["first.0"]["int2"] > 10 * noise["first.0"]["int8"]


def test_data_that_is_used_up_and_outputs_without_power_are_told(graph, batches):
    with pytest.raises(PenjingError, match="iterator"):
        sensitivity(graph, iter(batches), ["int8"])
    silent = pj.capture(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3))
    with torch.no_grad():
        for name in ("2.weight", "2.bias"):
            silent.tensor(name).zero_()
    with pytest.raises(PenjingError, match=r"All outputs of .* are zero"):
        sensitivity(silent, [torch.randn(4, 3)], ["int8"], activations=None)
