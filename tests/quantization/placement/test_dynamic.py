"""Ranges found at run time, weights alone, and recurrent layers: in the graph, in the file, on the runtime."""

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from networks.bi_lstm import BiLSTMClassifier
from networks.llama import Llama
from penjing import targets
from penjing.cli.compressing import in_floating_point
from penjing.errors import PenjingError
from penjing.graph import Graph, capture, channels, load
from penjing.quantization import NothingToQuantize, QuantizedTraining, quantize
from penjing.report import row, words

GROUPS = {"weights": "int4", "grain": "group:16"}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Linears(nn.Module):
    """Linear layers on sequences and on vectors, with a bias and without."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.head = nn.Linear(32, 48), nn.Linear(48, 32, bias=False), nn.Linear(32, 16)

    def forward(self, x):
        return self.head(self.down(self.up(x).relu()).mean(1))


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


def _graph(network=Linears, *shape):
    torch.manual_seed(0)
    return capture(network().eval(), torch.randn(2, *(shape or (3, 32))), dynamic={} if shape else {"x": (1,)})


def _x(*shape):
    return torch.randn(*(shape or (4, 5, 32)), generator=torch.Generator().manual_seed(1))


def _tokens(batch, length, vocabulary=32):
    return torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(1))


def _lowered(graph: Graph, folder):
    return targets.lower(graph, path=folder / "model.onnx")


def _ops(artifact):
    return [node.op for node in targets.profile(artifact)]


def _root_mean_square(x):
    return float(x.square().mean().sqrt())


# What stands in the graph


def test_a_range_found_at_run_time_is_that_of_onnx():
    small = quantize(_graph(), activations="dynamic")
    found = next(n for n in small.program.graph.nodes if "choose_qparams" in n.name)
    quantized = next(n for n in small.program.graph.nodes if "quantize_per_tensor" in n.name)
    names = [*(user.name for user in found.users), quantized.name]
    node = onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    values = {name: onnx.helper.make_tensor_value_info(name, 1, None) for name in "xqsz"}
    model = onnx.helper.make_graph([node], "g", [values["x"]], [values[name] for name in "qsz"])
    oracle = ReferenceEvaluator(onnx.helper.make_model(model, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    for x in (_x(), _x().abs() + 1, -_x().abs() - 1, torch.zeros(2, 5, 32)):
        with torch.no_grad():
            _, taken = small.with_outputs(names)(x)
        scale, zero, codes = (taken[name] for name in names)
        expected = oracle.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(codes.numpy() - zero.numpy(), expected[0].astype(int) - int(expected[2]), atol=1)
        if x.any():
            np.testing.assert_allclose(scale.numpy(), expected[1], rtol=1e-6)
            assert int(zero) == int(expected[2])


def test_groups_of_activations_are_rounded_as_torch_rounds_them():
    small = quantize(_graph(), activations="dynamic", **GROUPS)
    rounded = next(n for n in small.program.graph.nodes if n.name.startswith("flatten"))
    with torch.no_grad():
        _, taken = small.with_outputs([rounded.name])(_x())
    rows = _x().reshape(-1, 16)
    scale, zero = rows.abs().amax(1) / 127, torch.zeros(len(rows), dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(rows, scale, zero, 0, -127, 127).reshape(4, 5, 32)
    torch.testing.assert_close(taken[rounded.name], expected)


@pytest.mark.parametrize("settings", [{}, GROUPS])
def test_a_saved_graph_and_training_mode_give_the_same_and_gradients_pass(settings, tmp_path):
    small = quantize(_graph(), activations="dynamic", **settings)
    with torch.no_grad():
        expected = small(_x())
        small.save(tmp_path / "small.penjing")
        torch.testing.assert_close(load(tmp_path / "small.penjing")(_x()), expected, rtol=0, atol=0)
    outputs = small.train()(_x())
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    outputs.square().sum().backward()
    assert all(bool(small.tensor(f"{name}.weight").grad.any()) for name in ("up", "down", "head"))


def test_units_of_a_dynamic_graph_can_still_be_pruned():
    units = [group.units for group in channels(quantize(_graph(), activations="dynamic")).groups]
    assert units == [group.units for group in channels(_graph()).groups]


def test_learned_steps_train_the_weights_of_a_dynamic_graph():
    training = QuantizedTraining(_graph(), activations="dynamic")
    with torch.no_grad():
        assert _root_mean_square(training.graph(_x()) - _graph()(_x())) < 0.01
        assert torch.equal(training.finish()(_x()), training.finish()(_x()))


# On the runtime


@pytest.mark.parametrize(
    ("settings", "kernel"),
    [
        ({"weights": "uint8", "grain": "tensor"}, "DynamicQuantizeMatMul"),
        ({"weights": "ternary"}, "DynamicQuantizeMatMul"),
        ({"weights": "uint4", "grain": "group:16"}, "MatMulNBits"),
    ],
)
def test_linear_layers_are_multiplied_in_integers_and_give_the_same(settings, kernel, tmp_path):
    graph = _graph()
    small = quantize(graph, activations="dynamic", **settings)
    artifact = _lowered(small, tmp_path)
    assert targets.check_parity(artifact, small, [_x()]).max_abs_error < 1e-5
    assert _ops(artifact).count(kernel) == 3
    assert targets.integer_macs(artifact, graph.cost().macs) == pytest.approx(1)
    assert {node.module for node in targets.profile(artifact) if node.integer} == {"up", "down", "head"}


@pytest.mark.parametrize(
    ("weights", "grain", "kernel"),
    [
        ("uint4", "channel", "MatMulNBits"),
        ("int8", "channel", "MatMul"),
        ("uint8", "group:8", "MatMul"),
    ],
)
def test_weights_alone_are_multiplied_with_real_numbers(weights, grain, kernel, tmp_path):
    small = quantize(_graph(), weights=weights, grain=grain, activations=None)
    artifact = _lowered(small, tmp_path)
    assert targets.check_parity(artifact, small, [_x()]).max_abs_error < 1e-6
    assert kernel in _ops(artifact) and "DequantizeLinear" not in _ops(artifact)
    assert targets.integer_macs(artifact, small.cost().macs) == 0


def test_blocks_that_a_channel_does_not_fill_change_nothing(tmp_path):
    torch.manual_seed(0)
    graph = capture(nn.Linear(300, 7), torch.randn(2, 300))
    small = quantize(graph, weights="int4", activations=None)
    artifact = _lowered(small, tmp_path)
    assert "MatMulNBits" in _ops(artifact)
    assert targets.check_parity(artifact, small, [_x(5, 300)]).max_abs_error < 1e-5


@pytest.mark.parametrize(("activations", "bits"), [(None, 4), ("dynamic", 8)])
def test_a_file_of_groups_has_the_bits_of_its_weights_and_a_scale_for_each_group(activations, bits, tmp_path):
    torch.manual_seed(0)
    graph = capture(nn.Linear(512, 1024, bias=False), torch.randn(2, 512))
    small = quantize(graph, weights=f"int{bits}", grain="group:32", activations=activations)
    wanted = 512 * 1024 * bits / 8 + 512 * 1024 / 32 * 4
    assert wanted < _lowered(small, tmp_path).size_bytes < wanted + 1000


# Whole networks


def test_a_decoder_of_any_length_is_multiplied_in_integers(tmp_path):
    torch.manual_seed(0)
    graph = capture(Llama(layers=1).eval(), _tokens(2, 6), dynamic={"tokens": (1,)})
    small = quantize(graph, activations="dynamic")
    found = [node for node in small.program.graph.nodes if "choose_qparams" in str(node.target)]
    places = {step.place.path for step in small.plan if step.after == "int8"}
    assert len(places) == 9 and len(found) == 5  # queries, keys and values share one; the gate and what it gates
    artifact = _lowered(small, tmp_path)
    for length in (1, 11):
        tokens = _tokens(3, length)
        with torch.no_grad():
            simulated, real = small(tokens), graph(tokens)
        gap = _root_mean_square(targets.run(artifact, tokens) - simulated)
        assert gap < 0.2 * _root_mean_square(simulated - real)  # of what rounding changes
    integer = [node for node in targets.profile(artifact) if node.integer]
    assert {node.module for node in integer} == places - {
        "embed"
    }  # which is stored in integers, and multiplies nothing
    assert {node.op for node in integer} == {"MatMulIntegerToFloat", "DynamicQuantizeMatMul"}


def test_recurrent_layers_store_bytes_and_the_linear_layers_around_them_multiply_them(tmp_path):
    torch.manual_seed(0)
    graph = capture(BiLSTMClassifier(layers=2).eval(), _tokens(2, 6), dynamic={"tokens": (1,)})
    small = quantize(graph, activations="dynamic")
    settings = {step.place.path: words(step.to_json()) for step in small.plan}
    assert settings == {
        "mix": "int8 weights per channel, activations with a range found at run time",
        "head": "int8 weights per channel, activations with a range found at run time",
        "lstm": "int8 weights per channel, multiplied in floating point, since its activations are inside of the op",
        "embed": "int8 weights per channel, its rows become real numbers when they are looked up",
    }
    rows = [row(step.to_json()) for step in small.plan]
    assert "lstm (multiplied in floating point, since its activations are inside of the op)" in in_floating_point(rows)
    assert {step.place.path: step.found.get("reason") for step in small.plan}["lstm"] == "inside"
    artifact = _lowered(small, tmp_path)
    tokens = _tokens(3, 9)
    with torch.no_grad():
        simulated, real = small(tokens), graph(tokens)
    assert not torch.equal(simulated, real)
    assert _root_mean_square(targets.run(artifact, tokens) - simulated) < 0.2 * _root_mean_square(simulated - real)
    matrices = sum(weight.numel() for weight in graph.parameters() if weight.dim() > 1)
    others = sum(weight.numel() for weight in graph.parameters()) - matrices + graph.tensor("embed.weight").numel()
    scales = 4 * (2 * 2 * 2 * 4 * 32)  # a float for each row of four matrices in two directions
    assert artifact.size_bytes < matrices + 4 * others + scales + 15_000  # of nodes and names


def test_other_recurrent_layers_are_stored_in_few_bits_too():
    torch.manual_seed(0)

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.GRU(8, 16, batch_first=True)

        def forward(self, x):
            return self.layer(x)[0][:, -1]

    graph = capture(Last().eval(), torch.randn(2, 5, 8))
    small = quantize(graph, weights="int4", grain="group:8", activations=None)
    assert [step.place.path for step in small.plan] == ["layer"]
    weight, rounded = graph.tensor("layer.weight_ih_l0"), torch.zeros(0)
    node = next(n for n in small.program.graph.nodes if n.name.startswith("dequantize"))
    with torch.no_grad():
        rounded = small.with_outputs([node.name])(_x(2, 5, 8))[1][node.name]
    assert 0 < float((rounded - weight).abs().max()) < float(weight.abs().max()) / 7


# What can't be done


def test_convolutions_stay_in_float_and_the_plan_says_so(tmp_path):
    graph = _graph(Convolved, 3, 8, 8)
    small = quantize(graph, activations="dynamic")
    record = {step.place.path: (words(step.to_json()), step.after) for step in small.plan}
    assert record["conv"] == ("no range is found at run time for conv2d", "float32")
    integer = [node.module for node in targets.profile(_lowered(small, tmp_path)) if node.integer]
    assert integer == ["head"]


def test_a_network_of_convolutions_alone_is_an_error():
    graph = capture(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8))
    with pytest.raises(NothingToQuantize, match=r"no linear layer .* calibration data"):
        quantize(graph, activations="dynamic")


def test_groups_without_a_kernel_are_an_error_that_lists_those_with_one(tmp_path):
    with pytest.raises(PenjingError, match=r"no integer arithmetic .*'group:16', 'group:32'"):
        quantize(_graph(), activations="dynamic", grain="group:8")
    torch.manual_seed(0)
    graph = capture(nn.Linear(32, 4), _x(2, 32))
    small = quantize(graph, activations="dynamic", grain="group:8", simulate=True)
    artifact = _lowered(small, tmp_path)
    assert targets.check_parity(artifact, small, [_x(5, 32)]).max_abs_error < 1e-5
    assert targets.integer_macs(artifact, small.cost().macs) == 0


def test_weights_without_integers_are_an_error():
    with pytest.raises(PenjingError, match="can't multiply codebook:16"):
        quantize(_graph(), activations="dynamic", weights="codebook:16")


def test_a_group_that_does_not_divide_a_recurrent_layer_is_an_error():
    graph = capture(BiLSTMClassifier(layers=1).eval(), _tokens(2, 6))
    with pytest.raises(PenjingError, match=r"divide the weights of 'lstm\.weight_ih_l0' \(24 per channel, group:16\)"):
        quantize(graph, weights="int4", grain="group:16", activations=None)


def test_a_dynamic_graph_is_not_quantised_again():
    with pytest.raises(PenjingError, match="quantised already"):
        quantize(quantize(_graph(), activations="dynamic"), activations="dynamic")
