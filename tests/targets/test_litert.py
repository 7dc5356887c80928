"""What is special about LiteRT: files that Penjing writes itself, channels last, integers, and the runtime's own profile."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from networks.kinds import kinds
from penjing import data, zoo
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.quantization import quantize
from penjing.targets import check_parity, integer_macs, lower, open_artifact, profile, run

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from penjing.targets.litert._file import Grid, read
from penjing.targets.litert._lowering import within

aten = torch.ops.aten
NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def written(artifact):
    """Returns each op of a file with the dtype of its output."""
    model = read(artifact.path.read_bytes())
    graph = model.subgraphs[0]
    return [
        (NAMES[model.operatorCodes[one.opcodeIndex].builtinCode], graph.tensors[one.outputs[0]].type)
        for one in graph.operators
    ]


def count(artifact, *names):
    return sum(name in names for name, _ in written(artifact))


class Blocks(nn.Module):
    """Bottlenecks with explicit pads, as in EfficientNet-Lite, a gate, a join and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2)
        self.wide, self.deep = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 32, 3, stride=2, groups=32)
        self.less, self.more = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.thin = nn.Conv2d(32, 16, 1)
        self.left, self.right = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.joined, self.head = nn.Conv2d(32, 16, 1), nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu6(self.stem(F.pad(x, (0, 1, 0, 1))))
        y = F.hardswish(self.deep(F.pad(F.relu6(self.wide(x)), (0, 1, 0, 1))))
        gate = F.hardsigmoid(self.more(F.relu(self.less(y.mean((2, 3), keepdim=True)))))
        x = F.max_pool2d(x, 2) + self.thin(y * gate)
        x = torch.cat([self.left(x), F.relu(self.right(x))], 1)
        return self.head(self.joined(x).relu().mean((2, 3)))


def mobile():
    return Blocks().eval(), torch.randn(2, 3, 32, 32)


def residual():
    return zoo.build("resnet20").eval(), torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize("network", [mobile, residual])
def test_all_of_a_quantised_network_computes_in_integers_without_moves_that_the_float_file_lacks(network, tmp_path):
    torch.manual_seed(0)
    graph = capture(*network())
    small = quantize(graph, [torch.randn(8, *graph.inputs[0].shape[1:])], corrections=(), target="litert")
    whole, eighth = (lower(one, "litert", tmp_path / f"{n}.tflite") for n, one in enumerate((graph, small)))
    multiplying = [row for row in profile(eighth) if row.macs]
    assert multiplying and [row for row in multiplying if not row.integer] == []
    assert {row.module for row in multiplying} == {row.module for row in graph.cost().rows if row.macs}
    assert integer_macs(eighth, graph.cost()) == pytest.approx(1)
    (last, _), *others = written(eighth)[::-1]
    assert last == "DEQUANTIZE" and {dtype for _, dtype in others} == {schema.TensorType.INT8}
    for moves in (("TRANSPOSE",), ("PAD", "PADV2")):
        assert count(eighth, *moves) <= count(whole, *moves)


def test_explicit_zeros_become_the_padding_of_the_convolution_behind_them(tmp_path):
    torch.manual_seed(0)
    graph = capture(*mobile())
    assert count(lower(graph, "litert", tmp_path / "model.tflite"), "PAD", "PADV2") == 0


def test_an_integer_file_agrees_with_its_simulation_on_digits(tmp_path):
    torch.manual_seed(0)
    digits = data.digits()
    graph = capture(*residual())
    small = quantize(graph, digits, target="litert")
    artifact = lower(small, "litert", tmp_path / "model.tflite")
    images = torch.cat([batch[0] for batch in digits.validation])[:128]
    parity = check_parity(artifact, small, [images])
    assert parity.top1_agreement >= 0.97
    with torch.no_grad():
        expected = small.eval()(images)
    assert float((run(artifact, images) - expected).norm() / expected.norm()) < 0.03


class Ops(nn.Module):
    """A branch for each op, from an image with positive and negative values."""

    def __init__(self, branches):
        super().__init__()
        self.branches = branches
        self.up, self.norm, self.slopes = nn.ConvTranspose2d(4, 6, 4, 2, 1), nn.GroupNorm(2, 4), nn.PReLU(4)
        self.instance, self.one = nn.InstanceNorm2d(4, affine=True), nn.Conv1d(4, 6, 3, 2, 1)
        self.tokens = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.lstm, self.gru = nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True), nn.GRU(8, 5, batch_first=True)
        self.register_buffer("table", torch.randn(9, 3))

    def forward(self, x):
        return {name: branch(self, x) for name, branch in self.branches.items()}


BRANCHES = {
    "transposed convolution": lambda m, x: m.up(x),
    "convolution over one axis": lambda m, x: m.one(x.flatten(2)),
    "group norm": lambda m, x: m.norm(x),
    "instance norm": lambda m, x: m.instance(x),
    "prelu": lambda m, x: m.slopes(x),
    "encoder": lambda m, x: m.tokens(x.flatten(1, 2)),
    "lstm": lambda m, x: m.lstm(x.flatten(1, 2)[:, :4])[0],
    "gru": lambda m, x: m.gru(x.flatten(1, 2)[:, :4])[0],
    "bilinear": lambda m, x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "nearest": lambda m, x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "max pool": lambda m, x: F.max_pool2d(x, 3, 2, 1),
    "average pool with zeros": lambda m, x: F.avg_pool2d(x, 3, 2, 1),
    "average pool without zeros": lambda m, x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "uneven bins": lambda m, x: F.adaptive_avg_pool2d(x, (3, 5)),
    "largest of bins": lambda m, x: F.adaptive_max_pool2d(x, 3),
    "silu": lambda m, x: F.silu(x),
    "hardsigmoid": lambda m, x: F.hardsigmoid(x),
    "hardswish": lambda m, x: F.hardswish(x),
    "gelu": lambda m, x: F.gelu(x),
    "elu": lambda m, x: F.elu(x),
    "softplus": lambda m, x: F.softplus(20 * x),
    "mish": lambda m, x: F.mish(x),
    "leaky": lambda m, x: F.leaky_relu(x),
    "clamp": lambda m, x: x.clamp(-0.3, 0.7),
    "reflection": lambda m, x: F.pad(x, (1, 2, 3, 0), "reflect"),
    "other numbers around": lambda m, x: F.pad(x, (1, 1), value=2.0),
    "zeros around channels": lambda m, x: F.pad(x, (0, 0, 0, 0, 1, 2)),
    "zeros around zeros": lambda m, x: F.pad(F.pad(x, (1, 0)), (0, 2, 1, 0)).relu(),
    "deviation": lambda m, x: x.std((2, 3)),
    "normalised": lambda m, x: F.normalize(x),
    "rolled": lambda m, x: torch.roll(x, (1, 2), (2, 3)),
    "shuffled pixels": lambda m, x: F.pixel_shuffle(x, 2),
    "shuffled channels": lambda m, x: x.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2),
    "flipped": lambda m, x: x.flip(3),
    "position of the largest": lambda m, x: x.argmax(1),
    "turned and flat": lambda m, x: x.transpose(1, 3).reshape(x.shape[0], -1)[:, ::3],
    "every other": lambda m, x: x[:, :, 1::2, ::2],
    "uneven steps": lambda m, x: x[:, :, ::3],
    "some channels": lambda m, x: x[:, [1, 3]],
    "chosen": lambda m, x: torch.where(x > 0, x, -x),
    "masked": lambda m, x: x.masked_fill(x < 0.1, -1.0),
    "softmax": lambda m, x: x.softmax(1),
    "log softmax": lambda m, x: x.log_softmax(2),
    "stacked": lambda m, x: torch.stack([x, -x], 2),
    "running sum": lambda m, x: x.cumsum(1),
    "cube": lambda m, x: x**3,
    "powers by channel": lambda m, x: x.abs() ** torch.tensor([0.5, 1.0, 2.0, 3.0])[:, None, None],
    "variance by position": lambda m, x: torch.var(x, 1, False, True),
    "smallest magnitude": lambda m, x: torch.linalg.vector_norm(x, -math.inf, 1),
    "clip of a clip": lambda m, x: x.clamp(0, 0.5).clamp(0.6, 0.7),
    "repeated": lambda m, x: x.repeat(1, 2, 1, 1),
    "expanded": lambda m, x: x[:, :1].expand(-1, 3, -1, -1),
    "sum": lambda m, x: x.sum((1, 2)),
    "mean of one axis": lambda m, x: x.mean(3),
    "variance": lambda m, x: x.var(1),
    "parts": lambda m, x: x.unbind(1)[2] - x.chunk(2, 1)[1][:, 0],
    "products": lambda m, x: torch.einsum("bchw,bdhw->bcd", x, x),
    "largest three": lambda m, x: x.topk(3, 1)[0],
    "norm": lambda m, x: x.norm(dim=1),
    "looked up": lambda m, x: F.embedding(x.argmax(1), m.table),
    "channels as a vector": lambda m, x: x + torch.arange(4.0)[:, None, None] + x.mean((2, 3))[..., None, None],
    "columns as a vector": lambda m, x: x * torch.arange(8.0) + x[:, 0, 0][:, None, None],
    "causal": lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "gated": lambda m, x: F.glu(x, 1),
    "integers": lambda m, x: (x.argmax(1) + 1) % 3,
    "constant": lambda m, x: torch.ones(x.shape[0], 3),
}


def test_each_op_gives_what_pytorch_gives(tmp_path):
    torch.manual_seed(0)
    model = Ops(BRANCHES).eval()
    graph = capture(model, torch.randn(2, 4, 8, 8))
    artifact = lower(graph, "litert", tmp_path / "model.tflite")
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        expected = model(x)
    for name, value in run(artifact, x).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.filterwarnings("ignore:Mean was captured for batches of 2 alone")
def test_the_mean_of_all_entries_is_that_of_pytorch(tmp_path):
    class Mean(nn.Module):
        def forward(self, x):
            return x.reshape(2, 4) - x.mean(dtype=torch.float32)

    graph = capture(Mean(), torch.randn(2, 4))
    assert check_parity(lower(graph, "litert", tmp_path / "model.tflite"), graph).max_abs_error < 1e-6


@pytest.mark.parametrize("name", ["audio", "GhostNet", "ViT", "Llama"])
def test_networks_of_many_kinds_give_what_pytorch_gives(name, tmp_path):
    torch.manual_seed(0)
    network, inputs = kinds()[name]
    graph = capture(network.eval(), inputs)
    parity = check_parity(lower(graph, "litert", tmp_path / "model.tflite"), graph)
    assert parity.max_abs_error < 1e-5 and parity.top1_agreement == 1


def test_axes_that_are_permuted_are_only_read_in_another_order(tmp_path):
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
            self.norm, self.mix = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x):
            x = self.one(x).permute(0, 2, 3, 1)
            x = self.mix(self.norm(x)).permute(0, 3, 1, 2)
            return self.two(x).mean((2, 3))

    torch.manual_seed(0)
    graph = capture(Turned().eval(), torch.randn(2, 4, 6, 6))
    artifact = lower(graph, "litert", tmp_path / "model.tflite")
    assert count(artifact, "TRANSPOSE") == 1  # of the input, whose channels are second
    assert check_parity(artifact, graph).max_abs_error < 1e-5


INTEGER = {
    "sum of two": lambda x: x + F.max_pool2d(x, 3, 1, 1),
    "difference": lambda x: F.max_pool2d(x, 3, 1, 1) - x,
    "product": lambda x: x * F.max_pool2d(x, 3, 1, 1),
    "join": lambda x: torch.cat([x, F.relu(x)], 1)[:, 4:12],
    "pool": lambda x: F.avg_pool2d(x, 2),
    "bins": lambda x: F.adaptive_avg_pool2d(x, 4),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "leaky": F.leaky_relu,
    "silu": F.silu,
    "largest": lambda x: F.max_pool2d(x, 2),
    "moved": lambda x: x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2).permute(0, 1, 3, 2),
    "cut": lambda x: x[:, :, 1:, ::2],
    "parts": lambda x: x.chunk(2, 3)[1],
    "zeros": lambda x: F.pad(x, (0, 0, 0, 0, 1, 1))[:, 1:9],
    "upsampled": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "clip": lambda x: x.clamp(-0.5, 0.7),
}


@pytest.mark.parametrize("name", INTEGER)
def test_what_the_placement_calls_integer_is_written_in_integers(name, tmp_path):
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.second(INTEGER[name](self.first(x)))

    torch.manual_seed(0)
    graph = capture(Between().eval(), torch.randn(2, 3, 18, 18))
    small = quantize(graph, [torch.randn(16, 3, 18, 18)], corrections=(), target="litert")
    artifact = lower(small, "litert", tmp_path / "model.tflite")
    floats = [op for op, dtype in written(artifact) if dtype == schema.TensorType.FLOAT32]
    assert floats[0] == "DEQUANTIZE" and set(floats[1:]) <= {"TRANSPOSE", "RESHAPE"}  # of the output
    x = torch.randn(1, 3, 18, 18)
    with torch.no_grad():
        expected = small.eval()(x)
    step = 2.5 * float((expected.amax() - expected.amin()) / 255)
    assert float((run(artifact, x) - expected).abs().max()) <= step


@pytest.mark.parametrize(
    "pool",
    [lambda x: F.avg_pool2d(x, 3, 1, 1), lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True)],
    ids=["zeros around", "windows beyond the image"],
)
@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_averages_that_have_no_integer_form_are_written_in_floats(pool, runtime, tmp_path):
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.second(pool(self.first(x)))

    torch.manual_seed(0)
    graph = capture(Between().eval(), torch.randn(2, 3, 12, 12))
    small = quantize(graph, [torch.randn(16, 3, 12, 12)], corrections=(), target=runtime)
    x = torch.randn(1, 3, 12, 12)
    with torch.no_grad():
        expected = small.eval()(x)
    found = run(lower(small, "litert", tmp_path / "model.tflite"), x)
    assert float((found - expected).abs().max()) <= 2.5 * float((expected.amax() - expected.amin()) / 255)


@given(st.floats(0.001, 3), st.integers(-128, 127), st.integers(-128, 127), st.floats(-300, 300), st.floats(-300, 300))
def test_codes_between_bounds_are_those_of_clipped_values(scale, zero, end, first, second):
    low, high = sorted((first, second))
    grid = within(Grid(scale, zero, min(end, 0), max(end, 0)), (low, high))
    values = torch.tensor([low, high], dtype=torch.float64)
    codes = torch.clamp(torch.round(values / scale) + zero, min(end, 0), max(end, 0))
    assert [grid.low, grid.high] == codes.tolist()


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_resize_by_a_factor_that_gives_no_whole_size_is_refused(mode, tmp_path):
    class Resized(nn.Module):
        def forward(self, x):
            return F.interpolate(x, scale_factor=1.55, mode=mode)

    with pytest.raises(PenjingError, match=r"no rule for 'aten\.upsample_.* of 9 entries by 1\.55"):
        lower(capture(Resized(), torch.randn(2, 3, 9, 20)), "litert", tmp_path / "model.tflite")


def test_a_wide_stride_over_few_channels_reads_the_image_in_fewer_columns(tmp_path):
    torch.manual_seed(0)
    for kernel, stride, padding, size in ((3, 2, 1, 16), (7, 2, 3, 16), (4, 4, 0, 16), (3, 2, 1, 15), (3, 2, 0, 16)):
        graph = capture(nn.Conv2d(3, 8, kernel, stride, padding).eval(), torch.randn(2, 3, size, size))
        small = quantize(graph, [torch.randn(8, 3, size, size)], corrections=(), target="litert")
        artifact = lower(small, "litert", tmp_path / "model.tflite")
        x = torch.randn(1, 3, size, size)
        with torch.no_grad():
            expected = small.eval()(x)
        step = float((expected.amax() - expected.amin()) / 255)
        assert float((run(artifact, x) - expected).abs().max()) < 1.5 * step
        (row,) = [row for row in profile(artifact) if row.macs]
        assert row.macs == graph.cost().macs


def test_activations_of_fewer_bits_keep_to_their_codes(tmp_path):
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval(), torch.randn(2, 3, 9, 9))
    small = quantize(
        graph, [torch.randn(8, 3, 9, 9)], weights="int4", activations="int4", corrections=(), target="litert"
    )
    artifact = lower(small, "litert", tmp_path / "model.tflite")
    x = 3 * torch.randn(1, 3, 9, 9)  # beyond the ranges that calibration saw
    with torch.no_grad():
        expected = small.eval()(x)
    values = run(artifact, x)
    assert len(values.unique()) <= 16
    assert float((values - expected).abs().max()) < 1.5 * float(expected.amax() - expected.amin()) / 15


def test_channels_of_zeros_and_large_biases_are_as_exact_as_others(tmp_path):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3)
    with torch.no_grad():
        layer.weight[:3] = 0
        layer.weight[3] *= 1e-9
        layer.bias[:4] = torch.tensor([5.0, -4.0, 0.0, 3.0])
    graph = capture(nn.Sequential(layer, nn.Conv2d(8, 4, 1)).eval(), torch.randn(2, 8, 9, 9))
    small = quantize(graph, [torch.randn(8, 8, 9, 9)], corrections=(), target="litert")
    assert (
        check_parity(lower(small, "litert", tmp_path / "m.tflite"), small, small.example_inputs(4)).max_abs_error < 0.1
    )


def test_weights_alone_are_stored_as_bytes(tmp_path):
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)).eval(), torch.randn(2, 256))
    small = quantize(graph, activations=None, target="litert")
    artifact = lower(small, "litert", tmp_path / "model.tflite")
    assert artifact.size_bytes < 2 * 256 * 256 * 1.1
    assert check_parity(artifact, small).max_abs_error < 1e-4
    assert integer_macs(artifact, small.cost()) == 0


def test_constants_begin_where_kernels_expect_them(tmp_path):
    graph = capture(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5, 3)).eval(), torch.randn(2, 3, 3, 3))
    content = lower(graph, "litert", tmp_path / "model.tflite").path.read_bytes()
    for tensor in graph.tensors().values():
        if tensor.dim() > 1:
            values = tensor.detach().permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor.detach()
            assert content.index(np.ascontiguousarray(values.numpy()).tobytes()) % 16 == 0


def test_what_the_runtime_executes_is_laid_beside_the_ops_of_the_file(tmp_path):
    torch.manual_seed(0)
    graph = capture(*residual())
    rows = profile(lower(graph, "litert", tmp_path / "model.tflite"))
    convolutions = [row for row in rows if row.op == "CONV_2D"]
    assert len(convolutions) == 19 and all(row.latency_us > 0 and row.node for row in convolutions)
    assert sum(row.macs for row in rows) == graph.cost().macs
    assert {row.module for row in rows if row.macs} == {row.module for row in graph.cost().rows if row.macs}


def test_an_op_without_a_rule_is_named_with_the_users_line_and_other_targets(tmp_path):
    class Determinant(nn.Module):
        def forward(self, x):
            return torch.linalg.det(x)

    graph = capture(Determinant(), torch.randn(2, 4, 4))
    line = rf"at {re.escape(__file__)}:\d+ return torch.linalg.det\(x\)"
    with pytest.raises(PenjingError, match=rf"no rule for 'aten.linalg_det.default' {line}.*'onnxruntime'"):
        lower(graph, "litert", tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_entries_that_are_chosen_by_value_are_refused(tmp_path):
    class Positive(nn.Module):
        def forward(self, x):
            return x[x > 0]

    with pytest.raises(PenjingError, match=r"no rule for 'aten.index.Tensor'.*by truth values"):
        lower(capture(Positive(), torch.randn(2, 4)), "litert", tmp_path / "model.tflite")


def test_half_precision_is_refused_with_advice(tmp_path):
    graph = capture(nn.Linear(4, 3).half().eval(), torch.randn(2, 4).half())
    with pytest.raises(PenjingError, match=r"float16.*model\.float\(\)"):
        lower(graph, "litert", tmp_path / "model.tflite")


def test_half_a_file_is_refused(tmp_path):
    artifact = lower(capture(nn.Linear(4, 3), torch.randn(2, 4)), "litert", tmp_path / "model.tflite")
    content = artifact.path.read_bytes()
    artifact.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(PenjingError, match="can't load"):
        open_artifact(artifact.path, "litert")


def test_nothing_is_printed_while_a_file_is_loaded_and_run(tmp_path, capfd):
    artifact = lower(capture(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)), "litert", tmp_path / "model.tflite")
    run(artifact, torch.randn(1, 3, 8, 8))
    (tmp_path / "none.tflite").write_bytes(b"nothing")
    with pytest.raises(PenjingError):
        open_artifact(tmp_path / "none.tflite", "litert")
    assert capfd.readouterr() == ("", "")
