import hashlib
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch._ops import OperatorBase
from torch.export import exported_program
from torch.onnx._internal.exporter import _decomp
from torch.onnx._internal.exporter._registration import ONNXRegistry

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.quantization import quantize
from penjing.targets import check_parity, integer_macs, lower, open_artifact, profile, run
from penjing.targets.onnx._read_once import read_once


def fingerprint(graph):
    state = b"".join(t.detach().numpy().tobytes() for t in graph.tensors().values())
    return hashlib.sha256(state + graph.program.code.encode()).hexdigest()


def test_a_float_graph_gives_the_same_outputs_at_any_batch(plain, tmp_path):
    artifact = lower(plain, path=tmp_path / "model.onnx")
    for batch in (1, 3, 8):
        x = torch.randn(batch, 3, 12, 12)
        expected, actual = plain(x), run(artifact, x)
        assert set(actual) == {"logits", "features"}
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-5)


def test_lowering_leaves_the_graph_as_it_was(quantised, tmp_path):
    before = fingerprint(quantised)
    lower(quantised, path=tmp_path / "model.onnx")
    assert fingerprint(quantised) == before


def test_there_is_one_file_with_readable_names_and_no_batch_norm(plain, tmp_path):
    lower(plain, path=tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    model = onnx.load(tmp_path / "model.onnx")
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits", "features"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_quantised_weights_are_stored_as_int8(lowered):
    model = onnx.load(lowered.path)
    large = [t for t in model.graph.initializer if np.prod(t.dims) > 100]
    assert len(large) == 4
    assert {t.data_type for t in large} == {onnx.TensorProto.INT8}
    parameters = 3 * 16 * 9 + 16 * 32 * 9 + 16 * 16 + 32 * 5
    assert lowered.size_bytes < parameters + 8000


def test_a_quantised_graph_runs_in_integers_from_end_to_end(lowered, quantised):
    rows = profile(lowered)
    ops = [row.op for row in rows]
    assert ops.count("QuantizeLinear") == 1
    assert not {"Conv", "FusedConv", "Gemm", "Add", "Relu", "Clip", "ReduceMean"} & set(ops)
    assert ops.count("QLinearConv") == 3
    assert {"QLinearAdd", "QLinearConcat", "QLinearGlobalAveragePool", "QGemm"} <= set(ops)
    assert integer_macs(lowered, quantised.cost().macs) == pytest.approx(1.0)


def test_a_float_graph_has_no_integer_macs(plain, tmp_path):
    artifact = lower(plain, path=tmp_path / "model.onnx")
    assert integer_macs(artifact, plain.cost().macs) == 0


def test_the_profile_names_the_users_modules(lowered, plain, tmp_path):
    assert [row.module for row in profile(lowered) if row.macs] == ["stem", "body", "side", "head"]
    rows = profile(lower(plain, path=tmp_path / "model.onnx"))
    assert [row.module for row in rows if row.macs] == ["conv", "head"]


def test_a_fused_linear_is_traced_too(tmp_path):
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    rows = profile(lower(capture(model, torch.randn(2, 8)), path=tmp_path / "model.onnx"))
    assert [(row.module, row.macs) for row in rows if row.macs] == [("0", 128), ("2", 64)]


def test_integer_inputs_of_any_length_keep_their_range(tmp_path):
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 4))
    graph = capture(model, torch.randint(50, (2, 7)), dynamic={"input": (0, 1)})
    artifact = lower(graph, path=tmp_path / "model.onnx")
    assert artifact.inputs[0].shape == (None, None)
    assert profile(artifact)
    tokens = torch.randint(50, (3, 11))
    torch.testing.assert_close(run(artifact, tokens), graph(tokens), rtol=1e-4, atol=1e-5)


def test_a_fixed_batch_stays_fixed(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(3, 8).sum(1)

    artifact = lower(capture(Fixed(), torch.randn(3, 2, 4)), path=tmp_path / "model.onnx")
    assert artifact.batch == 3
    assert run(artifact, torch.randn(3, 2, 4)).shape == (3,)


def test_outputs_agree_with_the_simulation(lowered, quantised):
    parity = check_parity(lowered, quantised, quantised.example_inputs(64, seed=3))
    assert parity.top1_agreement >= 0.95
    assert parity.max_abs_error < 0.02


def test_the_largest_of_a_single_output_is_no_agreement(tmp_path):
    graph = capture(nn.Linear(4, 1), torch.randn(2, 4))
    parity = check_parity(lower(graph, path=tmp_path / "model.onnx"), graph)
    assert parity.top1_agreement is None and parity.max_abs_error < 1e-5


def test_hardsigmoid_and_its_product_become_integer(pair, tmp_path):
    class Gate(nn.Module):
        def forward(self, x):
            x = pair(x, 0.05, 128)
            return pair(x * pair(torch.nn.functional.hardsigmoid(x), 1 / 255), 0.03, 20)

    graph = capture(Gate(), torch.randn(2, 4, 8, 8))
    artifact = lower(graph, path=tmp_path / "model.onnx")
    ops = {row.op for row in profile(artifact)}
    assert {"QLinearAdd", "QLinearMul"} <= ops
    assert "HardSigmoid" not in ops
    assert check_parity(artifact, graph, (3 * torch.randn(8, 4, 8, 8),)).max_abs_error <= 0.03 + 1e-6


def test_a_file_is_opened_without_its_graph(lowered):
    again = open_artifact(lowered.path)
    assert again == lowered
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(run(again, x), run(lowered, x), rtol=0, atol=0)


def test_a_wrong_shape_is_refused(lowered):
    with pytest.raises(PenjingError, match=r"'image' has shape .* takes \(\*, 3, 32, 32\)"):
        run(lowered, torch.randn(2, 3, 16, 16))


def test_an_unknown_target_is_refused_with_the_nearest_name(plain, tmp_path):
    with pytest.raises(PenjingError, match="Did you mean 'onnxruntime'"):
        lower(plain, target="onnxruntim", path=tmp_path / "model.onnx")


def test_what_is_no_onnx_file_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(PenjingError, match="can't load"):
        open_artifact(tmp_path / "model.onnx")


def test_an_unwritable_place_is_refused(plain, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PenjingError, match="Can't write"):
        lower(plain, path=tmp_path / "file" / "model.onnx")


def test_a_value_that_is_clipped_twice_in_several_places_can_be_written(tmp_path):
    """The exporter's optimiser joins each two clips, and names the new bounds after the value."""

    class Clipped(nn.Module):
        def forward(self, x):
            x = 2 * x
            return x.clamp(-0.5, 2.0).clamp(-1.0, 0.5) + x.clamp(-0.2, 2.0).clamp(-1.0, 0.2)

    graph = capture(Clipped(), torch.randn(2, 4))
    x = torch.randn(5, 4)
    torch.testing.assert_close(run(lower(graph, path=tmp_path / "model.onnx"), x), graph(x))


@pytest.mark.parametrize("target", ["onnxruntime", "torch"])
def test_a_constant_that_two_expressions_read_is_stored_for_each(target, tmp_path):
    """One value computed from a parameter goes through two quantisers, and a third expression reads the parameter."""
    torch.manual_seed(0)
    graph = capture(nn.Linear(4, 4, bias=False), torch.randn(2, 4))
    nodes = graph.program.graph
    (layer,) = (node for node in nodes.nodes if node.op == "call_function")
    ops = torch.ops.quantized_decomposed
    with nodes.inserting_before(layer):
        doubled = nodes.call_function(torch.ops.aten.mul.Tensor, (layer.args[1], 2.0))
        total = doubled
        for scale in (0.01, 0.02):
            grid = (scale, 0, -127, 127, torch.int8)
            quantized = nodes.call_function(ops.quantize_per_tensor.default, (doubled, *grid))
            restored = nodes.call_function(ops.dequantize_per_tensor.default, (quantized, *grid))
            total = nodes.call_function(torch.ops.aten.add.Tensor, (total, restored))
    layer.replace_input_with(layer.args[1], total)
    graph.refresh()
    x = torch.randn(3, 4)
    artifact = lower(graph, target, tmp_path / "model")
    torch.testing.assert_close(run(artifact, x), graph(x), rtol=1e-4, atol=1e-5)


def test_a_buffer_may_be_called_like_an_op(tmp_path):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("t", "relu", "val_0", "add"):
                self.register_buffer(name, torch.randn(4, 4))

        def forward(self, x):
            return (x @ self.t + x @ self.t.t() @ self.relu).relu() @ self.val_0 + self.add[0]

    graph = capture(Named(), torch.randn(2, 4))
    x = torch.randn(3, 4)
    torch.testing.assert_close(run(lower(graph, path=tmp_path / "model.onnx"), x), graph(x), rtol=1e-4, atol=1e-4)


def test_the_integer_share_knows_of_float_products_that_cost_takes_for_free(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5))
    graph = capture(model, torch.randn(2, 3, 8, 8))
    small = quantize(graph, [torch.randn(8, 3, 8, 8)], corrections=(), exclude=["3"])
    artifact, cost = lower(small, path=tmp_path / "model.onnx"), small.cost()
    convolution, linear = 8 * 64 * 27, 8 * 64 * 5
    share = convolution / (convolution + linear)
    assert integer_macs(artifact, cost) == integer_macs(artifact, cost.macs) == pytest.approx(share)
    rows = tuple(replace(row, macs=0) if row.module == "3" else row for row in cost.rows)
    unaware = replace(cost, rows=rows, macs=convolution)
    assert integer_macs(artifact, unaware) == pytest.approx(share)


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_profile_counts_the_products_of_recurrent_layers(layer, tmp_path):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer(6, 5, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, x):
            return self.layer(x)[0]

    graph = capture(Last().eval(), torch.randn(2, 3, 6))
    rows = profile(lower(graph, path=tmp_path / "model.onnx"))
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[layer]
    assert [row.macs for row in rows if row.macs] == [3 * 2 * gates * 5 * (6 + 5), 3 * 2 * gates * 5 * (10 + 5)]
    assert sum(row.macs for row in rows) == graph.cost().macs


def test_the_exporters_translations_are_read_once_and_each_export_has_its_own():
    before = vars(ONNXRegistry)["from_torchlib"]
    with read_once():
        one, other = (ONNXRegistry.from_torchlib(opset_version=18) for _ in range(2))
        one.register_op(torch.ops.aten.relu.default, lambda x: x)
    assert vars(ONNXRegistry)["from_torchlib"] is before
    (known,) = other.get_decomps(torch.ops.aten.relu.default)
    added, same = one.get_decomps(torch.ops.aten.relu.default)
    assert added.is_custom and same is known
    anew = ONNXRegistry.from_torchlib(opset_version=18)
    assert anew.functions.keys() == other.functions.keys() and anew.opset_version == other.opset_version
    (read_anew,) = anew.get_decomps(torch.ops.aten.relu.default)
    assert read_anew is not known


def test_tables_of_decompositions_are_each_exports_own_and_composite_ops_found_anew_where_one_is_added():
    usual = _decomp.create_onnx_friendly_decomposition_table, OperatorBase.py_impl
    implemented = {torch.ops.aten.relu.default}
    found = _decomp.create_onnx_friendly_decomposition_table(implemented)
    with read_once():
        first = _decomp.create_onnx_friendly_decomposition_table(implemented)
        assert first.keys() == found.keys()
        first.clear()
        assert _decomp.create_onnx_friendly_decomposition_table(implemented).keys() == found.keys()
        before = exported_program._collect_all_valid_cia_ops()
        assert exported_program._collect_all_valid_cia_ops() is before
        with torch.library._scoped_library("penjing_tests", "FRAGMENT") as library:
            library.define("twice(Tensor x) -> Tensor")
            library.impl("twice", lambda x: x + x, "CompositeImplicitAutograd")
            assert torch.ops.penjing_tests.twice.default in exported_program._collect_all_valid_cia_ops() - before
        op = torch.ops.aten.relu.default
        op.py_impl(torch._C.DispatchKey.MPS)(len)
        try:
            assert op.py_kernels[torch._C.DispatchKey.MPS] is len
            with pytest.raises(RuntimeError, match="override"):
                op.py_impl(torch._C.DispatchKey.MPS)(len)
        finally:
            del op.py_kernels[torch._C.DispatchKey.MPS]
    assert usual == (_decomp.create_onnx_friendly_decomposition_table, OperatorBase.py_impl)


class Cuts(nn.Module):
    """Slices that follow each other on other axes, on the same axis, and one whose value is read twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        rows = x[:, :, 1::2]
        return x[:, :, ::2, 1:-1:3], x[:, :, 2:][:, 1:-1], x[:, :, 1:][:, :, ::3], rows, rows[:, :, :, -4:]


@pytest.mark.parametrize("in_integers", [False, True])
def test_slices_of_different_axes_are_one(in_integers, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 13)
    graph = capture(Cuts().eval(), (x,))
    graph = quantize(graph, [x]) if in_integers else graph
    artifact = lower(graph, path=tmp_path / "model.onnx")
    found = run(artifact, x)
    for one, expected in zip(found, graph(x), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-4 if not in_integers else 0.05)
    nodes = onnx.load(artifact.path).graph.node
    assert sum(node.op_type == "Slice" for node in nodes) == 6  # of eight
