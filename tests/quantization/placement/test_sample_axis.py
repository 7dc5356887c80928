"""Models that read one sample without an axis for it: a signal `(channels, length)`, an image, a vector."""

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.quantization import sensitivity
from penjing.quantization.corrections._pairs import find_pairs


class Vector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


class Turned(nn.Module):
    """A matrix of which both axes are features."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(20, 16), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)).transpose(0, 1))


NETWORKS = {
    "signal": (lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 3, 3)), (3, 20)),
    "signal to features": (lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Linear(18, 5)), (3, 20)),
    "image": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 3, 3)), (3, 10, 10)),
    "vector": (Vector, (6,)),
    "turned matrix": (Turned, (3, 20)),
}
ASKED = [
    {},
    {"corrections": "bias_correction"},
    {"corrections": "batch_norm_statistics"},
    {"rounding": "adaround:3", "corrections": ()},
    {"rounding": "quantease", "corrections": ()},
    {"rounding": "brecq:3", "corrections": ()},
]


@pytest.fixture(scope="module", params=NETWORKS)
def single(request):
    """A graph without a batch axis, and its calibration data."""
    torch.manual_seed(0)
    make, shape = NETWORKS[request.param]
    graph = pj.capture(make().eval(), torch.randn(shape))
    assert not any(given.dynamic for given in graph.inputs)
    return graph, [torch.randn(shape) for _ in range(20)]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: " ".join(map(str, asked.values())) or "default")
def test_a_model_that_reads_one_sample_alone_is_quantised_with_every_correction_and_rounding(single, asked):
    graph, data = single
    small = pj.quantize(graph, data, **asked)
    wanted, got = graph(data[0]), small(data[0])
    assert got.shape == wanted.shape
    assert (got - wanted).norm() < 0.1 * wanted.norm()


def test_the_noise_of_layers_that_read_one_sample_alone_is_measured(single):
    graph, data = single
    noise = sensitivity(graph, data, ["int8"])
    assert len(noise) == 2 and all(0 < found["int8"] < 0.01 for found in noise.values())


def test_channels_that_the_next_layer_takes_for_positions_are_not_equalised():
    for first, second, shape in [
        (nn.Conv1d(3, 8, 3), nn.Linear(8, 5), (2, 3, 10)),  # 8 channels, 8 positions: both fit the weight
        (nn.Linear(8, 6), nn.Conv1d(6, 4, 1), (2, 6, 8)),
    ]:
        graph = pj.capture(nn.Sequential(first, nn.ReLU(), second).eval(), torch.randn(shape))
        pairs, reasons = find_pairs(graph)
        assert not pairs and "takes its channels for positions" in reasons["0"]
        with pytest.raises(PenjingError, match="finds no two layers"):
            pj.quantize(graph, [torch.randn(16, *shape[1:])], corrections="cross_layer_equalization")
