"""The oracle that runs quantised graphs in integers alone, beside ONNX Runtime, float64 and exact rational arithmetic."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import integer_networks as ops
import numpy as np
import pytest
import small_networks as nets
import torch
from hypothesis import given
from hypothesis import strategies as st
from integer_oracle import FORMS, FixedPoint, NoIntegerForm, OnlyIntegers, Runner
from integer_oracle._windows import Windows
from torch import Tensor, nn
from torch.nn import functional as F

from penjing import targets, zoo
from penjing.errors import PenjingError
from penjing.graph import Graph, capture
from penjing.graph.clips import CLIPS
from penjing.quantization import quantize

QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _quantized(network: nn.Module, x: Tensor, **settings) -> Graph:
    return quantize(capture(network.eval(), x[:2]), [x], **settings)


def _images(count: int = 16) -> Tensor:
    return torch.randn(count, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def _replayed(network: nn.Module, x: Tensor, folder: Path, **settings: Any) -> "Replayed":
    """Runs a quantised network in ONNX Runtime, then the reference on the runtime's own integers, op by op."""
    small = _quantized(network, x, **settings)
    runner = Runner(small)
    expected, codes = targets.run(targets.lower(small.with_outputs(runner.rounded), path=folder / "tapped.onnx"), x)
    codes = {name: torch.as_tensor(values) for name, values in codes.items()}
    assert len(codes) == len(runner.rounded) > 1
    return Replayed(runner, expected, *runner.replay(codes, x), runner(x))


@dataclass(frozen=True)
class Replayed:
    """What ONNX Runtime gave out, what the reference makes of the runtime's integers, and what it makes by itself."""

    runner: Runner
    expected: Any
    outputs: Any
    differences: dict[str, Tensor]
    alone: Any

    def of(self, name: str) -> Tensor:
        """The differences of what a layer of that name, or an op, made and a quantise node rounded."""
        nodes = {node.name: node for node in self.runner.graph.program.graph.nodes}
        found = []
        for quantize_node, difference in self.differences.items():
            source = nodes[quantize_node].args[0]
            while source.target in CLIPS:
                source = source.args[0]
            if f"{source.meta.get('module', '')}.".startswith(f"layers.{name}.") or source.name == name:
                found.append(difference.flatten())
        return torch.cat(found)


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory) -> Replayed:
    torch.manual_seed(0)
    return _replayed(ops.SideBySide(), _images(), tmp_path_factory.mktemp("ops"))


# Against ONNX Runtime


@pytest.mark.parametrize("op", ops.MOVING)
def test_ops_that_move_and_compare_give_the_runtimes_values(op, side_by_side):
    assert torch.equal(side_by_side.outputs[op], side_by_side.expected[op])


@pytest.mark.parametrize("op", ops.LOOKED_UP)
def test_ops_that_look_up_give_the_runtimes_integers(op, side_by_side):
    assert not side_by_side.of(op).any()


@pytest.mark.parametrize("op", [*ops.RESCALED, *ops.LAYERS])
def test_ops_that_rescale_sums_give_the_runtimes_integers_but_for_ties(op, side_by_side):
    difference = side_by_side.of(op)
    assert int(difference.abs().max()) <= 1
    assert float((difference != 0).float().mean()) < 1e-3


@pytest.mark.parametrize("op", ops.APPROXIMATED)
def test_ops_that_the_runtime_computes_on_reals_are_within_a_step(op, side_by_side):
    difference = side_by_side.of(op)
    assert int(difference.abs().max()) <= 1
    assert float((difference != 0).float().mean()) < 0.02


def test_sums_that_nothing_rounds_are_the_runtimes(side_by_side):
    torch.testing.assert_close(side_by_side.outputs["linear"], side_by_side.expected["linear"], rtol=0, atol=0)


def test_resnet20_gives_the_runtimes_integers_but_for_ties(tmp_path):
    torch.manual_seed(0)
    found = _replayed(zoo.resnet20(), torch.randn(8, 3, 32, 32), tmp_path)
    differences = torch.cat([difference.flatten() for difference in found.differences.values()])
    assert int(differences.abs().max()) <= 1
    assert float((differences != 0).float().mean()) < 1e-4
    assert found.runner.in_float == ()
    assert torch.equal(found.outputs, found.expected)  # bit for bit, of the same integers before the last layer


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_the_reference_is_near_the_simulation(activations):
    x = _images()
    torch.manual_seed(0)
    small = _quantized(nets.SqueezeExcite(), x, activations=activations)
    with torch.no_grad():
        expected = small(x)
    assert float((Runner(small)(x) - expected).abs().max()) <= 0.02 * float(expected.abs().max())


# Against exact arithmetic


@given(st.integers(-(2**37), 2**37), st.floats(2.0**-40, 2.0**20, width=32))
def test_fixed_point_products_are_the_nearest_integers(value, factor):
    fixed = FixedPoint.of(np.float32(factor))
    assert int(fixed.mantissa) < 2**31
    assert int(fixed.multiply(torch.tensor(value))) == round(
        value * Fraction(factor)
    )  # halves to even, as Python rounds


@pytest.mark.parametrize(("value", "nearest"), [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2)])
def test_halves_round_to_the_even_integer(value, nearest):
    assert int(FixedPoint.of(0.5).multiply(torch.tensor(value))) == nearest


@given(
    st.lists(st.floats(2.0**-8, 2.0**8, width=32), min_size=2, max_size=3), st.lists(st.integers(-255, 255), min_size=3)
)
def test_factors_of_one_sum_share_a_shift_and_stay_exact(factors, values):
    fixed = FixedPoint.together(*factors)
    for mantissa, factor in zip(fixed.mantissa.tolist(), factors, strict=True):
        assert Fraction(mantissa, 2 ** int(fixed.shift)) == Fraction(factor)


def test_a_convolution_is_the_exact_product_rounded_once():
    torch.manual_seed(0)
    x = _images()
    small = _quantized(nn.Conv2d(8, 16, 3, stride=2, padding=1), x)
    given, made = (n.args for n in small.program.graph.nodes if n.target is QUANTIZE)
    codes = (x / given[1]).round() + given[2]
    scales = small.tensor("weight_scale").double()
    weight = (small.tensor("weight").double() / scales.reshape(-1, 1, 1, 1)).round()
    steps = (torch.tensor(given[1], dtype=torch.float32) * scales.float()).double()
    bias = (small.tensor("bias").double() / steps).round()
    sums = F.conv2d(codes.clamp(0, 255).double() - given[2], weight, bias, 2, 1)  # exact: below 2^53
    factor = (steps.float() / torch.tensor(made[1], dtype=torch.float32)).double().reshape(-1, 1, 1)
    expected = ((sums * factor).round() + made[2]).clamp(0, 255)
    torch.testing.assert_close((Runner(small)(x).double() / made[1] + made[2]).round(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"), [(3, 2, 1, 1), (2, 3, 0, 1), (3, 1, 1, 2), (5, 4, 2, 1)]
)
def test_windows_are_those_of_pytorchs_pooling(kernel, stride, padding, dilation, ceil_mode):
    for size in range(5, 12):
        x = torch.randint(-100, 100, (2, 3, size, size + 1))
        expected = F.max_pool2d(x.float(), kernel, stride, padding, dilation, ceil_mode)
        windows = Windows((kernel,) * 2, (stride,) * 2, ((padding,) * 2,) * 2, (dilation,) * 2, ceil_mode)
        found = torch.stack([seen for _, seen in windows.over(x, -1000)]).amax(0)
        assert torch.equal(found.float(), expected)


def test_sixteen_bits_keep_exact_sums(tmp_path):
    torch.manual_seed(0)
    x, network = _images(), nets.Residual()
    graph = capture(network.eval(), x[:2])
    small = quantize(graph, [x], weights="int16", activations="int16", simulate=True)
    with torch.no_grad():
        expected, fine = graph(x), Runner(small)(x)
    assert float((fine - expected).abs().max()) < 1e-3 * float(expected.abs().max())


# Integers alone


@pytest.mark.parametrize("make", [lambda x: x.float(), lambda x: x / 2, lambda x: torch.rand(2), lambda x: x * 0.5])
def test_the_mode_refuses_floating_point(make):
    x = torch.arange(4)
    with OnlyIntegers(), pytest.raises(AssertionError, match="among integers"):
        make(x)


def test_the_mode_refuses_to_read_floating_point():
    x = torch.rand(4)
    with OnlyIntegers(), pytest.raises(AssertionError, match="read a float32"):
        x.to(torch.int32)


def test_a_form_that_computes_in_floating_point_is_caught(monkeypatch):
    from integer_oracle import Kernel

    def cheating(call, a, b, alpha):
        return Kernel(lambda a, b: (a + b * 0.5).int(), (a, b), call.grid)

    monkeypatch.setitem(FORMS, torch.ops.aten.add.Tensor, cheating)
    x = _images()
    with pytest.raises(AssertionError, match="among integers"):
        Runner(_quantized(nets.Residual(), x))(x)


@pytest.mark.parametrize("network", [nets.PoolFirst, nets.Residual])
def test_only_what_stands_behind_the_last_layer_is_in_float(network):
    runner = Runner(_quantized(network(), _images()))
    assert runner.in_float == (("log_softmax",) if network is nets.PoolFirst else ())


# What can't be


def test_an_op_without_an_integer_form_is_named_with_its_module():
    with pytest.raises(NoIntegerForm, match="'conv_transpose2d' in 'up' has no integer form"):
        Runner(_quantized(nets.Upsampled(), _images()))


def test_a_layer_in_float_between_integers_is_named():
    with pytest.raises(NoIntegerForm, match="'conv2d' in 'conv2' has a weight"):
        Runner(_quantized(nets.Residual(), _images(), exclude=["conv2"]))


@pytest.mark.parametrize("settings", [None, {"activations": None}])
def test_a_graph_without_integer_activations_is_refused(settings):
    graph = capture(nets.Residual().eval(), _images(2))
    small = graph if settings is None else quantize(graph, **settings)
    with pytest.raises(PenjingError, match="no quantised activations"):
        Runner(small)


def test_a_replay_names_an_unknown_node():
    x = _images()
    runner = Runner(_quantized(nets.Residual(), x))
    with pytest.raises(PenjingError, match="Unknown quantise node 'relu'"):
        runner.replay({"relu": torch.zeros(1)}, x)


def test_sums_that_64_bits_cant_hold_are_refused():
    from integer_oracle import Call

    node = capture(nets.Residual().eval(), _images(2)).program.graph.output_node()
    call = Call(node, {}, None, None, None)
    assert call.accumulator(2**31 - 1) is torch.int32
    assert call.accumulator(2**31) is torch.int64
    with pytest.raises(NoIntegerForm, match="64 bits"):
        call.accumulator(2**63)
