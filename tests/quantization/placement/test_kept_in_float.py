"""What stays in floating point stands in the plan, with the reason as a code and in words."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import penjing as pj
from penjing.cli.compressing import in_floating_point
from penjing.report import words
from penjing.report._words import REASONS


class Mixed(nn.Module):
    """One of everything that stays in floating point, beside two layers that don't."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.odd = nn.Linear(8, 8)
        self.made = nn.Parameter(torch.randn(8, 8))
        self.up = nn.ConvTranspose1d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.relu(self.first(x)))
        x = self.up(self.odd(x)) + F.linear(x, torch.tanh(self.made + x.mean()))
        return self.head(torch.softmax(x @ x.transpose(1, 2), -1) @ x)


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return pj.capture(Mixed().eval(), torch.randn(2, 4, 8))


def _reasons(graph: pj.Graph, **asked: object) -> dict[str, str]:
    small = pj.quantize(graph, [torch.randn(16, 4, 8)], **asked)
    return {step.place.path: step.found["reason"] for step in small.plan if step.after == "float32"}


def test_everything_that_multiplies_or_reads_parameters_is_in_the_plan_in_integers_or_with_a_reason(graph):
    reasons = _reasons(graph)
    assert {place: reasons[place] for place in ("norm", "up", "linear_2", "matmul")} == {
        "norm": "kernel",
        "up": "kernel",
        "linear_2": "computed",
        "matmul": "readers",
    }
    assert "first" not in reasons and "head" not in reasons


def test_what_the_user_left_in_floating_point_says_so(graph):
    reasons = _reasons(graph, exclude=["odd"], in_float=["head"], per_layer={"up": "float32"})
    assert (reasons["odd"], reasons["up"], reasons["head"]) == ("asked", "asked", "slower")


def test_what_finds_no_range_at_run_time_says_so(graph):
    assert _reasons(graph, activations="dynamic", corrections=())["matmul"] == "range"


def test_a_layer_in_another_precision_beside_float32_ones_says_so():
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.wide = nn.Linear(8, 8), nn.Linear(8, 3).to(torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return self.wide(self.first(x).double())

    graph = pj.capture(Wide().eval(), torch.randn(2, 8))
    small = pj.quantize(graph, [torch.randn(16, 8)])
    (step,) = [step for step in small.plan if step.after == "float32"]
    assert step.found["reason"] == "dtype" and "float64" in words(step.to_json())


def test_an_op_beside_a_layer_of_the_same_module_has_a_place_of_its_own():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    graph = pj.capture(attention, (torch.randn(2, 4, 8),) * 3)
    small = pj.quantize(graph, [(x, x, x) for x in [torch.randn(16, 4, 8)]])
    places = [step.place.path for step in small.plan]
    assert len(places) == len(set(places))


def test_every_record_in_floating_point_has_a_known_reason_and_is_kept_in_the_file(graph, tmp_path):
    small = pj.quantize(graph, [torch.randn(16, 4, 8)])
    small.save(tmp_path / "small.penjing")
    kept = [step for step in pj.load(tmp_path / "small.penjing").plan if step.after == "float32"]
    assert kept and all(step.found["reason"] in REASONS for step in kept)


def test_the_command_line_names_a_few_by_reason():
    no_kernel = {"reason": "kernel", "op": "group_norm", "target": "onnxruntime"}
    step = {"technique": "quantize", "setting": {}}
    plan = [{**step, "place": f"norm{i}", "found": no_kernel} for i in range(5)]
    plan += [{**step, "place": "head", "found": {"reason": "asked"}}, {**step, "place": "conv"}]
    plan += [{"technique": "factorize", "setting": {}, "place": "other", "found": {"reason": "grouped"}}]
    assert in_floating_point(plan) == (
        "In floating point: norm0, norm1, norm2 and 2 more (onnxruntime has no integer kernel for group_norm); "
        "head (stays in floating point as asked)."
    )
    assert in_floating_point(plan[-1:]) == ""
