"""Weights in the graph, in files and on the runtime, for every grid and grain."""

import onnx
import pytest
import small_networks as nets
import torch
from torch import nn

from penjing import targets
from penjing.errors import PenjingError
from penjing.graph import capture, load
from penjing.quantization import grids, quantize
from penjing.report import words

CASES = [
    ("int4", "channel"),
    ("uint4", "tensor"),
    ("int8", "group:8"),
    ("int4", "group:4"),
    ("power_of_two:4", "channel"),
    ("codebook:16", "tensor"),
    ("codebook:16", "channel"),
    ("ternary", "tensor"),
    ("ternary", "group:8"),
    ("binary", "channel"),
]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _graph(network=nets.Residual):
    torch.manual_seed(0)
    return capture(network().eval(), torch.randn(2, 8, 8, 8))


def _x(count=8):
    return torch.randn(count, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def _weights_only(weights, grain, network=nets.Residual):
    return quantize(_graph(network), weights=weights, grain=grain, activations=None)


def test_every_grid_is_tried():
    keys = {name.partition(":")[0] for name, _ in CASES}
    assert keys | {"intN", "uintN"} >= set(grids)


@pytest.mark.parametrize(("weights", "grain"), CASES)
def test_a_saved_graph_gives_the_same_and_training_mode_too(weights, grain, tmp_path):
    small, x = _weights_only(weights, grain), _x()
    with torch.no_grad():
        expected = small(x)
        small.save(tmp_path / "small.penjing")
        torch.testing.assert_close(load(tmp_path / "small.penjing")(x), expected, rtol=0, atol=0)
        torch.testing.assert_close(small.train()(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("weights", "grain"), CASES)
def test_what_stands_for_the_weights_can_be_trained(weights, grain):
    small = _weights_only(weights, grain).train()
    small(_x()).square().sum().backward()
    moved = [
        name for name, parameter in small.named_parameters() if parameter.grad is not None and parameter.grad.any()
    ]
    name = {"codebook": "conv1.weight_table", "ternary": "conv1.weight_scale", "binary": "conv1.weight_scale"}
    assert name.get(weights.partition(":")[0], "conv1.weight") in moved


def test_the_gradient_of_a_shared_value_is_the_sum_of_its_weights_gradients():
    graph = capture(nn.Linear(6, 4), torch.randn(2, 6))
    small = quantize(graph, weights="codebook:3", activations=None).train()
    x = torch.randn(5, 6)
    small(x).square().sum().backward()
    codes, table = small.tensor("weight_codes").long().reshape(4, 6), small.tensor("weight_table")
    weight = table.detach()[0][codes].requires_grad_()
    nn.functional.linear(x, weight, graph.tensor("bias").detach()).square().sum().backward()
    sums = torch.zeros(3).index_add_(0, codes.reshape(-1), weight.grad.reshape(-1))
    torch.testing.assert_close(table.grad[0], sums)


def test_pruned_weights_stay_zero_when_shared_values_are_trained():
    graph = _graph()
    mask = torch.rand(8, 8, 3, 3, generator=torch.Generator().manual_seed(0)) > 0.6
    graph.masks["conv1.weight"] = mask
    graph.apply_masks()
    small = quantize(graph, weights="codebook:4", activations=None).train()
    optimizer = torch.optim.SGD(small.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        small(_x()).square().sum().backward()
        optimizer.step()
    conv = next(node for node in small.program.graph.nodes if str(node.target).startswith("aten.conv2d"))
    _, found = small.with_outputs([conv.args[1].name])(_x())
    assert bool((found[conv.args[1].name][~mask] == 0).all())
    assert "conv1.weight" not in small.masks


def test_binary_weights_of_pruned_layers_are_an_error():
    graph = _graph()
    graph.masks["conv2.weight"] = torch.zeros(8, 8, 3, 3, dtype=torch.bool)
    with pytest.raises(PenjingError, match=r"'conv2' was pruned.*no zero"):
        quantize(graph, weights="binary", activations=None)


@pytest.mark.parametrize("grain", ["tensor", "channel", "group:8"])
def test_rounded_weights_are_those_of_torchs_own_fake_quantisation(grain):
    graph = capture(nn.Linear(16, 4), torch.randn(2, 16))
    small = quantize(graph, weights="int4", grain=grain, activations=None)
    with torch.no_grad():
        made = small(torch.eye(16)) - graph.tensor("bias")
    rows = {"tensor": (1, 64), "channel": (4, 16), "group:8": (8, 8)}[grain]
    weight = graph.tensor("weight").detach().reshape(rows)
    pair = next(node for node in small.program.graph.nodes if "quantize_per" in str(node.target))
    scale = torch.tensor([pair.args[1]]) if grain == "tensor" else small.tensor("weight_scale").reshape(-1)
    zero = torch.zeros(len(scale), dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -7, 7).reshape(4, 16)
    torch.testing.assert_close(made.T, expected, rtol=1e-5, atol=1e-6)


# On the runtime


def _stored(path):
    """Types of the stored matrices and kernels."""
    kinds = onnx.TensorProto.DataType
    return {kinds.Name(constant.data_type) for constant in onnx.load(path).graph.initializer if len(constant.dims) > 1}


@pytest.mark.parametrize(
    ("weights", "grain", "stored"),
    [("int4", "group:8", "INT4"), ("codebook:16", "tensor", "UINT4"), ("codebook:17", "tensor", "UINT8")],
)
def test_the_runtime_gives_the_same_from_a_file_of_small_integers(weights, grain, stored, tmp_path):
    small = _weights_only(weights, grain)
    artifact = targets.lower(small, path=tmp_path / "small.onnx")
    assert targets.check_parity(artifact, small, [_x()]).max_abs_error < 1e-5
    kinds = _stored(tmp_path / "small.onnx")
    packed = {"INT4", "UINT8"} if grain != "tensor" else set()  # the bytes of MatMulNBits hold two each
    assert stored in kinds and not kinds - {stored, "FLOAT"} - packed
    floats = sum(
        len(constant.raw_data) // 4
        for constant in onnx.load(tmp_path / "small.onnx").graph.initializer
        if constant.data_type == onnx.TensorProto.FLOAT
    )
    assert floats < 8 * 8 * 9  # not even one of the convolutions


@pytest.mark.parametrize("settings", [{"weights": "int4"}, {"weights": "ternary"}, {"activations": "int5"}])
def test_few_bits_are_multiplied_as_integers(settings, tmp_path):
    small, x = quantize(_graph(), [_x(16)], **settings), _x()
    artifact = targets.lower(small, path=tmp_path / "small.onnx")
    assert targets.integer_macs(artifact, small.cost().macs) == pytest.approx(1)
    with torch.no_grad():
        assert targets.check_parity(artifact, small, [x]).max_abs_error < 0.01 * float(small(x).abs().max())


# Choices


def test_each_layer_gets_the_first_choice_that_fits():
    choices = {"conv1": "float32", "conv*": "ternary", "head": "int8/tensor"}
    small = quantize(_graph(), [_x()], weights="int4", per_layer=choices)
    done = {step.place.path: (step.after, words(step.to_json()).partition(",")[0]) for step in small.plan}
    assert done == {
        "conv1": ("float32", "stays in floating point as asked"),
        "conv2": ("ternary", "ternary weights per channel"),
        "head": ("int8", "int8 weights per tensor"),
    }


def test_layers_that_share_a_weight_must_share_their_grid():
    graph = _graph(nets.Shared)
    assert quantize(graph, weights="ternary", activations=None).plan[0].place.path == "conv"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grain": "group:7"}, r"'conv1' \(72 weights per channel, group:7\).*per_layer"),
        ({"grain": "group:1"}, "at least 2"),
        ({"grain": "rows"}, "Unknown grain"),
        ({"weights": "codebook:4", "grain": "group:8"}, "tensor and channel"),
        ({"per_layer": {"conv9": "int4"}}, "conv9"),
        ({"per_layer": {"conv1": "float"}}, "Unknown grid"),
    ],
)
def test_choices_that_fit_no_layer_are_errors(settings, message):
    with pytest.raises(PenjingError, match=message):
        quantize(_graph(), activations=None, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "int16"}, r"can't multiply int16 weights per channel.*int2…int8.*simulate=True"),
        ({"weights": "codebook:16"}, "activations=None"),
        ({"weights": "int4", "grain": "group:8"}, "per channel int2…int8"),
        ({"activations": "int16"}, r"'int16' activations.*uint2…uint8"),
    ],
)
def test_what_the_target_cant_run_is_an_error_that_lists_what_it_can(settings, message):
    with pytest.raises(PenjingError, match=message):
        quantize(_graph(), [_x()], **settings)
    small = quantize(_graph(), [_x()], simulate=True, **settings)
    assert small.plan and torch.isfinite(small(_x())).all()


def test_codes_arent_quantised_again():
    with pytest.raises(PenjingError, match="already"):
        quantize(_weights_only("codebook:4", "auto"), weights="int8", activations=None)
