"""Quantised for one target or another: each gets what it can run, and says what else it can where it can't."""

import dataclasses

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.capabilities import find
from penjing.errors import PenjingError
from penjing.quantization import QuantizedTraining, sensitivity
from penjing.report import words

OPS = torch.ops.quantized_decomposed
aten = torch.ops.aten


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8, 4)
    )
    return pj.capture(net.eval(), torch.randn(2, 3, 8, 8))


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(1)
    return [torch.randn(8, 3, 8, 8) for _ in range(2)]


def _ops(graph):
    return [node.target for node in graph.program.graph.nodes if node.op == "call_function"]


def test_each_target_gets_its_own_placement(graph, data):
    assert OPS.quantize_per_tensor.default in _ops(pj.quantize(graph, data, target="onnxruntime"))
    alone = _ops(pj.quantize(graph, target="torch", activations=None))
    assert OPS.quantize_per_tensor.default not in alone and alone.count(OPS.dequantize_per_channel.default) == 3


@pytest.mark.parametrize("settings", [{}, {"activations": "dynamic"}, {"activations": None, "placement": "integer"}])
def test_a_target_without_integers_says_what_it_can_do_instead(graph, data, settings):
    with pytest.raises(PenjingError, match="torch computes nothing in integers") as raised:
        pj.quantize(graph, data, target="torch", **settings)
    for way in ("activations=None", "simulate=True", "target='onnxruntime'"):
        assert way in str(raised.value)


def test_what_it_says_instead_works(graph, data):
    simulated = pj.quantize(graph, data, target="torch", simulate=True)
    layers = [n for n in simulated.program.graph.nodes if n.target in (aten.conv2d.default, aten.linear.default)]
    assert [layer.args[0].target for layer in layers] == [OPS.dequantize_per_tensor.default] * 3
    assert _ops(simulated).count(OPS.quantize_per_tensor.default) == 3, "nothing but what layers read is rounded"
    assert [step.after for step in pj.quantize(graph, target="torch", activations=None).plan] == ["int8"] * 3


def test_a_record_of_an_own_target_is_placed_for(graph, data):
    able = find("onnxruntime")
    linear = dataclasses.replace(able.placement, layers={aten.linear.default: lambda node: True})
    own = dataclasses.replace(able, name="mine", placement=linear)
    small = pj.quantize(graph, data, target=own)
    assert [step.place.path for step in small.plan if step.after == "int8"] == ["5"]
    assert "mine has no integer kernel for conv2d" in {words(step.to_json()) for step in small.plan}


def test_noise_and_training_are_of_the_same_target(graph, data):
    alone = sensitivity(graph, data, ["int4"], target="torch", activations=None)
    both = sensitivity(graph, data, ["int4"], target="torch")
    assert alone.keys() == both.keys() == {"0", "3", "5"}
    assert all(both[place]["int4"] > 0 for place in both) and alone != both
    with pytest.raises(PenjingError, match="torch computes nothing in integers"):
        QuantizedTraining(graph, data, target="torch")
    training = QuantizedTraining(graph, target="torch", activations=None)
    training(training.graph, 1.0)
    small = training.finish()
    assert _ops(small) == _ops(pj.quantize(graph, target="torch", activations=None))
