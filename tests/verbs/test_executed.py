"""`placement="integer"` is proven on the model that the runtime executes, whatever the tables say of it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.capabilities import find
from penjing.errors import PenjingError

aten = torch.ops.aten


class Upsampled(nn.Module):
    """A transposed convolution between two others: ONNX Runtime computes it in floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.last = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(8, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.up(torch.relu(self.first(x)))))


@pytest.fixture(scope="module")
def batches():
    torch.manual_seed(0)
    return [torch.randn(8, 3, 8, 8) for _ in range(2)]


@pytest.fixture(scope="module")
def upsampled() -> pj.Graph:
    torch.manual_seed(0)
    return pj.capture(Upsampled().eval(), torch.randn(2, 3, 8, 8))


@pytest.fixture
def too_hopeful():
    """What ONNX Runtime can do, by a table that is wrong of one op."""
    known = find("onnxruntime")
    layers = {**known.placement.layers, aten.conv_transpose2d.input: lambda node: True}
    return replace(known, placement=replace(known.placement, layers=layers))


def test_a_table_that_is_wrong_of_an_op_is_found_out(upsampled, batches, too_hopeful):
    with pytest.raises(PenjingError, match=r"onnxruntime executes 'ConvTranspose' in 'up' in floating point there"):
        pj.quantize(upsampled, batches, target=too_hopeful, placement="integer")
    assert pj.quantize(upsampled, batches, target=too_hopeful).plan, "the fastest placement promises nothing"


def test_what_the_user_leaves_in_floating_point_is_no_fault(upsampled, batches):
    for asked in ({"exclude": ["up"]}, {"per_layer": {"up": "float32"}}):
        small = pj.quantize(upsampled, batches, placement="integer", **asked)
        assert {step.place.path for step in small.plan if step.after == "int8"} == {"first", "last"}


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "litert", "executorch"])
def test_linear_layers_and_convolutions_are_executed_in_integers(batches, target):
    if not any(one.name == target and one.usable for one in pj.targets.available()):
        pytest.skip(f"{target} isn't installed.")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    small = pj.quantize(pj.capture(model, torch.randn(2, 3, 8, 8)), batches, target=target, placement="integer")
    assert {step.after for step in small.plan} == {"int8"}


def test_where_the_runtime_cannot_be_run_a_warning_says_that_nothing_was_checked(upsampled, batches):
    elsewhere = replace(find("onnxruntime"), name="a phone")
    with pytest.warns(UserWarning, match="a phone: it can't be run on this machine"):
        pj.quantize(upsampled, batches, target=elsewhere, placement="integer", exclude=["up"])


def test_a_simulation_is_executed_nowhere(upsampled, batches, monkeypatch):
    monkeypatch.setattr("penjing.verbs._executed.profile", None)
    assert pj.quantize(upsampled, batches, weights="int3", simulate=True, placement="integer", exclude=["up"]).plan
