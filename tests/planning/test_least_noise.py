"""Bits for every layer: never worse than the same for all, and within the budget."""

import pytest
import torch
from blobs import points
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.planning import Deployment, OverBudget, Problem, grids_of
from penjing.planning.bit_costs import Costs
from penjing.planning.solvers import _least_noise as least_noise
from penjing.techniques import Scope

GRIDS = ("int2", "int3", "int4", "int5", "int6")
ALONE = {"activations": None, "simulate": True}


def counted(graph, folder):
    """Costs of what runs nowhere."""
    return Costs(Problem(graph, None, None, pj.Budget(), Deployment("onnxruntime"), {}, Scope(), folder))


class Unequal(nn.Module):
    """Two branches, of which the second hardly counts."""

    def __init__(self) -> None:
        super().__init__()
        self.much, self.little, self.head = nn.Linear(12, 64), nn.Linear(12, 64), nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.much(x)) + 0.03 * torch.relu(self.little(x)))


@pytest.fixture(scope="module")
def learned():
    torch.manual_seed(0)
    graph = pj.capture(Unequal().eval(), torch.randn(2, 12))
    return graph, pj.Data(None, points(1)[:2], points(2), pj.tasks.Classification(8))


def noise(graph, small, data):
    with torch.no_grad():
        pairs = [(graph(x), small(x)) for x, _ in data.validation]
    return sum(float((a - b).square().sum()) for a, b in pairs) / sum(float(a.square().sum()) for a, _ in pairs)


@pytest.mark.parametrize("uniform", ["int4", "int5"])
def test_it_beats_the_same_bits_everywhere_with_no_more_bytes(learned, tmp_path, uniform):
    graph, data = learned
    plain = pj.quantize(graph, weights=uniform, **ALONE)
    costs = counted(graph, tmp_path)
    size = costs.whole(plain, ["bytes"])["bytes"]
    small = pj.quantize(graph, data, weights=GRIDS, budget=pj.Budget(size=f"{size:.0f}B"), **ALONE)
    assert costs.whole(small, ["bytes"])["bytes"] <= size
    assert grids_of(small)["much"] > uniform > grids_of(small)["little"]
    assert noise(graph, small, data) < 0.7 * noise(graph, plain, data)


def test_the_count_of_bytes_is_bits_and_scales_and_all_else_as_it_is(learned, tmp_path):
    graph, _ = learned
    others = 4 * (64 + 64 + 8)
    costs = counted(graph, tmp_path)
    assert costs.original_bytes == others + 4 * (2 * 64 * 12 + 8 * 64)
    small = pj.quantize(graph, weights="int3", per_layer={"little": "codebook:16/tensor", "head": "float32"}, **ALONE)
    by_hand = others + 3 * 64 * 12 / 8 + 4 * 64 + 4 * 64 * 12 / 8 + 4 * 16 + 4 * 8 * 64
    assert costs.whole(small, ["bytes"])["bytes"] == by_hand


def test_batch_norms_count_as_the_biases_that_they_become(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    graph = pj.capture(network, torch.randn(2, 3, 8, 8))
    assert counted(graph, tmp_path).original_bytes == 4 * (8 * 3 * 9 + 8 + 4 * 8 + 4)


def test_the_file_keeps_the_budget(learned, tmp_path):
    graph, data = learned
    told: list[str] = []
    before = pj.lower(graph, path=tmp_path / "float.onnx").size_bytes
    eight = pj.lower(pj.quantize(graph, data), path=tmp_path / "int8.onnx").size_bytes
    four = pj.lower(pj.quantize(graph, data, weights="int4"), path=tmp_path / "int4.onnx").size_bytes
    budget = pj.Budget(size=f"{(eight + four) / 2 / before:.4f}x")
    small = pj.quantize(graph, data, weights=("int4", "int8"), budget=budget, log=told.append)
    size = pj.lower(small, path=tmp_path / "small.onnx").size_bytes
    assert four < size <= (eight + four) / 2 * 1.001
    assert set(grids_of(small).values()) == {"int4", "int8"}
    assert f"{size:,} bytes of" in told[-1]


def test_what_is_slow_in_integers_goes_to_floating_point_as_far_as_latency_asks(learned, monkeypatch):
    graph, data = learned
    slow = {"much": (1.0, 4.0), "little": (8.0, 2.0), "head": (1.0, 1.0)}

    class Told(Costs):
        original_ms = 20.0

        def profile(self, small):
            pass

        def ms(self, place, grid):
            return slow[place][grid != "float32"]

        def whole(self, small, kinds):
            found = grids_of(small)
            return {"bytes": 1.0, "ms": 2.0 + sum(self.ms(place, found.get(place, "float32")) for place in slow)}

    monkeypatch.setattr(least_noise, "Costs", Told)
    small = pj.quantize(graph, data, weights=("int8", "float32"), budget=pj.Budget(latency="0.3x"))
    # 2 + 1 + 2 + 1 = 6 ms of 6: one must be in integers, one must not, and the last is free to be exact.
    assert {place: grid for place, grid in grids_of(small).items() if grid != "float32"} == {"little": "int8"}


def test_layers_with_a_grid_of_their_own_keep_it(learned):
    graph, data = learned
    small = pj.quantize(
        graph, data, weights=GRIDS, per_layer={"much": "int5"}, budget=pj.Budget(size="0.25x"), **ALONE
    )  # fmt: skip
    assert grids_of(small)["much"] == "int5"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weights": GRIDS, "budget": pj.Budget(latency="0.5x"), **ALONE}, "Latency is measured on the target"),
        ({"weights": GRIDS, "budget": pj.Budget(size="0.2x"), "per_layer": {"*": "int8"}, **ALONE}, "nothing to choose"),
        ({"weights": ("int8", "float32"), "budget": pj.Budget(size="1x"), **ALONE}, "in floating point everywhere"),
        (
            {"weights": GRIDS, "budget": pj.Budget(size="0.2x", macs="0.5x"), **ALONE},
            "quantize keeps limits on size, latency and drop; compress keeps macs= too",
        ),
        ({"weights": GRIDS, "budget": pj.Budget(peak_memory="L2"), **ALONE}, "compress keeps peak_memory= too"),
        ({"weights": ("int8", "in4"), "budget": pj.Budget(size="1x"), **ALONE}, "Did you mean 'int4'"),
    ],
)  # fmt: skip
def test_what_can_not_be_chosen_is_told(learned, options, says):
    graph, data = learned
    with pytest.raises(PenjingError, match=says):
        pj.quantize(graph, data, **options)


def test_a_plan_of_grids_keeps_no_limit_on_what_grids_do_not_change(learned):
    graph, data = learned
    budget = pj.Budget(size="0.2x", layers=1)
    with pytest.raises(PenjingError, match="'least_noise' keeps limits on size and latency, and none on layers"):
        pj.plan(graph, data, techniques={"quantize": {"weights": GRIDS}}, solver="least_noise", budget=budget)


def test_a_budget_below_the_smallest_is_told(learned, tmp_path):
    graph, data = learned
    least = counted(graph, tmp_path).whole(pj.quantize(graph, weights="int4", **ALONE), ["bytes"])["bytes"]
    with pytest.raises(OverBudget, match=rf"the least possible, each alone: {least:,.0f} bytes of "):
        pj.quantize(graph, data, weights=("int4", "int8"), budget=pj.Budget(size="0.05x"), **ALONE)


def test_a_plan_of_bits_is_what_quantize_does_bit_for_bit(learned):
    graph, data = learned
    grids, budget = ["int4", "int8"], pj.Budget(size="0.65x")
    plan = pj.plan(graph, data, techniques={"quantize": {"weights": grids}}, solver="least_noise", budget=budget)
    made, small = pj.apply(graph, plan, data, stage="numbers"), pj.quantize(graph, data, weights=grids, budget=budget)
    assert {step.after for step in plan} == set(grids) and made.plan == small.plan
    assert plan.architecture == graph.architecture
    weights = small.tensors()
    assert made.tensors().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in made.tensors().items())


def test_a_solver_of_bits_takes_no_structure(learned):
    graph, data = learned
    with pytest.raises(PenjingError, match=r"'least_noise' chooses a grid for each layer.*not prune, quantize"):
        pj.plan(graph, data, solver="least_noise", budget=pj.Budget(size="0.5x"))


def test_where_there_is_no_grid_to_choose_the_reason_is_told(learned):
    graph, data = learned
    choices = {"solver": "least_noise", "budget": pj.Budget(size="0.5x")}
    with pytest.raises(PenjingError, match="torch computes nothing in integers"):
        pj.plan(graph, data, target="torch", techniques={"quantize": {"weights": ["int4", "int8"]}}, **choices)
    for none in ("float32", ["float32"], []):
        with pytest.raises(PenjingError, match="names no grid to round to"):
            pj.plan(graph, data, techniques={"quantize": {"weights": none}}, **choices)
