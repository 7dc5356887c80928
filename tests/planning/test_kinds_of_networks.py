"""Bounds and budgets on networks of several kinds: convolutions, attention, recurrence, a network that is one layer."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.planning import Deployment, Problem
from penjing.planning.bit_costs import Costs, grids_of
from penjing.quantization import sensitivity
from penjing.tasks import agreement
from penjing.techniques import Scope


def costs_of(graph, original, folder):
    """Costs beside a lowered original; counted ones without it."""
    return Costs(Problem(graph, None, original, pj.Budget(), Deployment("onnxruntime"), {}, Scope(), folder))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.widen, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 64), nn.Linear(64, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.widen(self.gru(x)[0][:, -1])))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(x).mean(1))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.widen, self.filter = nn.Conv2d(4, 16, 1), nn.Conv2d(16, 16, 3, stride=4, groups=16)
        self.head = nn.Linear(64, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.filter(torch.relu(self.widen(x)))).flatten(1))


class Mixed(nn.Module):
    """A constant that multiplies, a pool that passes integers on, and a recurrent layer behind a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3)
        self.gain = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.narrow, self.gru, self.head = nn.Linear(8, 8), nn.GRU(8, 12, batch_first=True), nn.Linear(12, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.gain * self.first(x))))
        x = nn.functional.max_pool2d(x, 2).flatten(2).transpose(1, 2)
        return self.head(self.gru(self.narrow(x))[0][:, -1])


KINDS = {
    "one layer": (lambda: nn.Linear(12, 6), (12,)),
    "depthwise": (Depthwise, (4, 8, 8)),
    "attention": (Attention, (5, 16)),
    "recurrent": (Recurrent, (5, 8)),
    "mixed": (Mixed, (4, 8, 8)),
}


def made(kind):
    torch.manual_seed(0)
    network, shape = KINDS[kind]
    graph = pj.capture(network().eval(), torch.randn(2, *shape))
    batches = [torch.randn(32, *shape) for _ in range(2)]
    return graph, pj.Data(None, batches, [torch.randn(256, *shape)], pj.tasks.Classification(6))


@pytest.mark.parametrize(
    ("kind", "activations"), [*((kind, "auto") for kind in KINDS), ("attention", "dynamic"), ("recurrent", None)]
)
def test_no_more_layers_go_back_than_the_answers_need(kind, activations):
    graph, data = made(kind)
    choices = {"weights": "int2", "activations": activations, "corrections": (), "simulate": True}
    plain = pj.quantize(graph, data, **choices)
    before = agreement(graph, plain, data.validation, data.task)
    drop = (0.5 if kind == "one layer" else 0.9) * (1 - before)
    held = pj.quantize(graph, data, drop=drop, **choices)
    assert agreement(graph, held, data.validation, data.task) >= 1 - drop
    back = {place for place, grid in grids_of(held).items() if grid != "int2"}
    assert back < set(grids_of(plain)) or kind == "one layer"


@pytest.mark.parametrize(
    ("kind", "activations"), [("depthwise", "auto"), ("attention", "dynamic"), ("recurrent", "auto")]
)
def test_bits_are_chosen_within_a_budget(kind, activations, tmp_path):
    graph, data = made(kind)
    choices = {"activations": activations, "corrections": (), "simulate": True}
    costs = costs_of(graph, None, tmp_path)
    few, many = (pj.quantize(graph, data, weights=grid, **choices) for grid in ("int2", "int8"))
    least, most = (costs.whole(small, ["bytes"])["bytes"] for small in (few, many))
    budget = pj.Budget(size=f"{(least + most) / 2:.0f}B")
    small = pj.quantize(graph, data, weights=("int2", "int4", "int8"), budget=budget, **choices)
    assert least < costs.whole(small, ["bytes"])["bytes"] <= (least + most) / 2 + 1
    assert grids_of(small).keys() == grids_of(few).keys()
    assert noise(graph, small, data) < noise(graph, few, data)


def test_the_matrices_of_a_recurrent_layer_are_counted_together(tmp_path):
    graph, _ = made("recurrent")
    costs = costs_of(graph, None, tmp_path)
    rows, weights = 2 * 3 * 16, 3 * 16 * (8 + 16)
    assert costs.bytes("gru", "int4") == weights / 2 + 4 * rows
    small = pj.quantize(graph, weights="int4", activations=None, exclude=["widen", "head"], simulate=True)
    assert costs.whole(small, ["bytes"])["bytes"] == costs.original_bytes - 4 * weights + weights / 2 + 4 * rows


def test_layers_of_the_network_itself_have_their_share_of_its_time(tmp_path):
    graph, data = made("one layer")
    costs = costs_of(graph, pj.lower(graph, path=tmp_path / "original.onnx"), tmp_path)
    costs.profile(pj.quantize(graph, data))
    (place,) = grids_of(pj.quantize(graph, data))
    assert costs.ms(place, "float32") > 0 and costs.ms(place, "int8") > 0


def test_a_recurrent_network_has_a_place():
    graph = pj.capture(nn.GRU(8, 16, batch_first=True).eval(), torch.randn(2, 5, 8))
    (place,) = grids_of(
        pj.quantize(graph, weights="int8", activations=None, corrections="bias_correction", simulate=True)
    )
    assert sensitivity(graph, [torch.randn(2, 5, 8)], ["int8"], activations=None).keys() == {place}


def noise(graph, small, data):
    with torch.no_grad():
        return sum(float((graph(x) - small(x)).square().sum()) for x in data.validation)


@pytest.mark.parametrize(
    ("kind", "activations"),
    [("depthwise", "auto"), ("mixed", "auto"), ("attention", "dynamic"), ("recurrent", "dynamic"), ("recurrent", None)],
)
def test_the_noise_of_a_layer_is_that_of_the_network_with_all_others_in_float(kind, activations):
    graph, data = made(kind)
    choices = {"weights": "int4", "activations": activations, "corrections": (), "simulate": True}
    measured = sensitivity(graph, data, ["int4"], samples=10**6, activations=activations)
    assert measured.keys() == grids_of(pj.quantize(graph, data, **choices)).keys()
    within = 0.3 if activations == "auto" else 1e-3  # what a convolution gives is rounded then, too, by its own grid
    judged = replace(data, validation=data.calibration)
    power = noise(graph, lambda x: torch.zeros(len(x), 6), judged)
    for place, found in measured.items():
        inner_first = sorted(measured, key=lambda other: -other.count("."))
        grids = {other: "int4" if other == place else "float32" for other in inner_first}
        alone = pj.quantize(graph, data, per_layer=grids, **choices)
        assert found["int4"] == pytest.approx(noise(graph, alone, judged) / power, rel=within), place
