"""Each op in PyTorch against ONNX Runtime, on a file of that op alone."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, numpy_helper

from importing.onnx_files import node, write
from penjing.errors import PenjingError
from penjing.importing.onnx import read_onnx
from penjing.importing.onnx.ops import FORMS

IMAGE = {"x": ["n", 4, 6, 7]}
ROWS = {"x": ["n", 5, 8]}
FLAT = {"x": ["n", 8]}


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, np.int64)


def case(op, inputs, *constants, opset=17, domain="", outputs=("y",), **attributes):
    names = [*inputs, *(f"c{i}" if value is not None else "" for i, value in enumerate(constants))]
    values = {f"c{i}": value for i, value in enumerate(constants) if value is not None}
    return [node(op, names, outputs, "the/node", domain, **attributes)], inputs, values, outputs, opset


def chain(*steps, constants=None, inputs=None, opset=17):
    """A case of several nodes: each an op, its inputs, its output and its attributes; the last one's output is "y"."""
    nodes = []
    for op, names, output, *rest in steps:
        more = dict(rest[0]) if rest else {}
        nodes.append(node(op, names, [output], f"the/{output}", more.pop("domain", ""), **more))
    return nodes, inputs or FLAT, constants or {}, ("y",), opset


def truth(op, *names, constants=None, inputs=None):
    """A case of an op on truth values, or that gives them; as numbers, which a comparison of outputs needs."""
    return chain(
        ("Greater", ["x", "zero"], "p"), ("Less", ["x", "one"], "q"), (op, list(names), "r"), ("Cast", ["r"], "y", {"to": FLOAT}),
        constants={"zero": np.float32(0), "one": np.float32(0.5), **(constants or {})}, inputs=inputs,
    )  # fmt: skip


FLOAT = TensorProto.FLOAT
PLACES = np.array([[0, 1], [2, 3]], np.int64)

ACTIVATIONS = {
    op: case(op, FLAT)
    for op in (
        "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Erf", "Neg", "Abs", "Exp", "Reciprocal", "Floor", "Ceil", "Round",
        "Sign", "Sin", "Cos", "Atan", "Identity", "HardSwish", "Elu", "Selu", "Celu", "LeakyRelu", "ThresholdedRelu",
        "HardSigmoid", "Softmax", "LogSoftmax", "Dropout", "IsNaN",
    )
}  # fmt: skip

CASES = ACTIVATIONS | {
    "Mish": case("Mish", FLAT, opset=18),
    "Gelu": case("Gelu", FLAT, opset=20),
    "Gelu by tanh": case("Gelu", FLAT, opset=20, approximate="tanh"),
    "Gelu of Microsoft's": case("Gelu", FLAT, domain="com.microsoft"),
    "FastGelu": case("FastGelu", FLAT, domain="com.microsoft"),
    "Elu of another slope": case("Elu", FLAT, alpha=0.4),
    "HardSigmoid as PyTorch's": case("HardSigmoid", FLAT, alpha=1 / 6, beta=0.5),
    "PRelu per channel": case("PRelu", IMAGE, weights(4, 1, 1)),
    "PRelu of one slope": case("PRelu", IMAGE, weights(1)),
    "PRelu per entry": case("PRelu", FLAT, weights(8)),
    "Clip": case("Clip", FLAT, np.float32(-0.5), np.float32(0.3)),
    "Clip to 6": case("Clip", FLAT, np.float32(0), np.float32(6)),
    "Clip from below": case("Clip", FLAT, np.float32(-0.5)),
    "Clip by attributes": case("Clip", FLAT, opset=10, min=-0.5, max=0.3),
    "Softmax over channels": case("Softmax", IMAGE, axis=1),
    "Softmax of old files": case("Softmax", IMAGE, opset=11, axis=1),
    "Add a number": case("Add", FLAT, np.float32(2)),
    "Add a row": case("Add", ROWS, weights(8)),
    "Add more axes": case("Add", FLAT, weights(1, 1, 1)),
    "Sub": case("Sub", ROWS, weights(8)),
    "Mul": case("Mul", ROWS, weights(5, 1)),
    "Div": case("Div", ROWS, weights(8)),
    "Pow": case("Pow", FLAT, np.float32(2)),
    "Mod": case("Mod", FLAT, weights(8), fmod=1),
    "Max": case("Max", ROWS, weights(8), np.float32(0.1)),
    "Min": case("Min", ROWS, weights(8)),
    "Sum": case("Sum", ROWS, weights(8), weights(5, 8)),
    "Mean": case("Mean", ROWS, weights(8), weights(5, 8)),
    "Greater": case("Greater", ROWS, weights(8)),
    "LessOrEqual": case("LessOrEqual", ROWS, np.float32(0)),
    "Cast": case("Cast", FLAT, to=TensorProto.INT32),
    "ReduceMean": case("ReduceMean", IMAGE, axes=[2, 3]),
    "ReduceMean of new files": case("ReduceMean", IMAGE, ints(2, 3), opset=18, keepdims=0),
    "ReduceSum": case("ReduceSum", IMAGE, ints(-1)),
    "ReduceMax": case("ReduceMax", IMAGE, axes=[1], keepdims=0),
    "ReduceMin": case("ReduceMin", IMAGE, axes=[1]),
    "ReduceProd": case("ReduceProd", ROWS, axes=[1, 2]),
    "ReduceL1": case("ReduceL1", ROWS, axes=[2]),
    "ReduceL2": case("ReduceL2", ROWS, axes=[2]),
    "ReduceSumSquare": case("ReduceSumSquare", ROWS, axes=[1]),
    "ReduceLogSumExp": case("ReduceLogSumExp", ROWS, axes=[1]),
    "ArgMax": case("ArgMax", ROWS, axis=2, keepdims=0),
    "TopK": case("TopK", FLAT, ints(3), outputs=("y", "i")),
    "CumSum": case("CumSum", ROWS, np.int64(1)),
    "LpNormalization": case("LpNormalization", FLAT, axis=-1),
    "Reshape": case("Reshape", IMAGE, ints(0, 2, -1)),
    "Flatten": case("Flatten", IMAGE),
    "Flatten from another axis": case("Flatten", IMAGE, axis=2),
    "Transpose": case("Transpose", IMAGE, perm=[0, 2, 3, 1]),
    "Squeeze": case("Squeeze", {"x": ["n", 1, 5]}, ints(1)),
    "Squeeze of old files": case("Squeeze", {"x": ["n", 1, 5]}, opset=11, axes=[1]),
    "Unsqueeze": case("Unsqueeze", FLAT, ints(1, -1)),
    "Concat": case("Concat", {"x": ["n", 4], "z": ["n", 3]}, axis=1),
    "Split": case("Split", FLAT, ints(3, 5), outputs=("y", "z"), axis=1),
    "Split into halves": case("Split", FLAT, outputs=("y", "z"), axis=1),
    "Slice": case("Slice", IMAGE, ints(1, 0), ints(2**63 - 1, -1), ints(2, 3), ints(2, 1)),
    "Slice backwards": case("Slice", FLAT, ints(-1), ints(-(2**63)), ints(1), ints(-1)),
    "Slice of old files": case("Slice", IMAGE, opset=9, starts=[1], ends=[3], axes=[1]),
    "Expand": case("Expand", {"x": ["n", 1, 5]}, ints(1, 3, 1)),
    "Tile": case("Tile", FLAT, ints(1, 3)),
    "Pad": case("Pad", IMAGE, ints(0, 0, 1, 2, 0, 0, 3, 0), np.float32(0.5)),
    "Pad by reflection": case("Pad", IMAGE, ints(0, 0, 1, 2, 0, 0, 3, 0), mode="reflect"),
    "Pad by edges": case("Pad", IMAGE, ints(0, 0, 1, 2, 0, 0, 3, 0), mode="edge"),
    "DepthToSpace": case("DepthToSpace", IMAGE, blocksize=2),
    "DepthToSpace, columns first": case("DepthToSpace", IMAGE, blocksize=2, mode="CRD"),
    "SpaceToDepth": case("SpaceToDepth", {"x": ["n", 3, 6, 4]}, blocksize=2),
    "Trilu": case("Trilu", ROWS, np.int64(1), upper=0),
    "Einsum": case("Einsum", {"x": ["n", 4], "z": ["n", 4]}, equation="bi,bj->bij"),
    "Gather": case("Gather", IMAGE, ints(3, 0, -2), axis=1),
    "Gather neighbours": case("Gather", IMAGE, ints(1, 2), axis=1),
    "Gather one": case("Gather", IMAGE, np.int64(-1), axis=2),
    "MaxPool": case("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "MaxPool, uneven": case("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    "MaxPool, the same size": case("MaxPool", IMAGE, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    "MaxPool, rounded up": case("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "AveragePool": case("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "AveragePool with the padding": case("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "AveragePool, uneven": case("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    "GlobalAveragePool": case("GlobalAveragePool", IMAGE),
    "GlobalMaxPool": case("GlobalMaxPool", IMAGE),
    "Resize, nearest": case(
        "Resize", IMAGE, None, np.array([1, 1, 2, 2], np.float32), nearest_mode="floor",
        coordinate_transformation_mode="asymmetric"
    ),
    "Resize, nearest by half pixels": case("Resize", IMAGE, None, np.array([1, 1, 2, 3], np.float32)),
    "Resize, linear": case("Resize", IMAGE, None, np.array([1, 1, 2, 1.5], np.float32), mode="linear"),
    "Resize, linear to the corners": case(
        "Resize", IMAGE, None, np.array([1, 1, 2, 2], np.float32), mode="linear", coordinate_transformation_mode="align_corners"
    ),
    "Upsample": case("Upsample", IMAGE, np.array([1, 1, 2, 2], np.float32), opset=9),
    "Conv": case("Conv", IMAGE, weights(6, 4, 3, 3), weights(6), pads=[1, 1, 1, 1], strides=[2, 1]),
    "Conv, depthwise": case("Conv", IMAGE, weights(4, 1, 3, 3), group=4, dilations=[1, 2]),
    "Conv, uneven": case("Conv", IMAGE, weights(6, 4, 3, 3), pads=[0, 0, 1, 1], strides=[2, 2]),
    "Conv, the same size": case("Conv", IMAGE, weights(6, 4, 3, 2), strides=[2, 2], auto_pad="SAME_UPPER"),
    "Conv, the same size, lower": case("Conv", IMAGE, weights(6, 4, 3, 2), auto_pad="SAME_LOWER"),
    "Conv over a line": case("Conv", ROWS, weights(6, 5, 3), weights(6)),
    "ConvTranspose": case("ConvTranspose", IMAGE, weights(4, 3, 3, 3), weights(3), strides=[2, 2], pads=[1, 1, 1, 1]),
    "ConvTranspose, uneven": case("ConvTranspose", IMAGE, weights(4, 3, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1]),
    "ConvTranspose, longer": case("ConvTranspose", IMAGE, weights(4, 3, 3, 3), strides=[2, 2], output_padding=[1, 1]),
    "Gemm": case("Gemm", FLAT, weights(8, 3), weights(3)),
    "Gemm, scaled": case("Gemm", FLAT, weights(3, 8), weights(3), transB=1, alpha=0.5, beta=2.0),
    "Gemm with a bias for all": case("Gemm", FLAT, weights(8, 3), weights(1)),
    "MatMul": case("MatMul", ROWS, weights(8, 3)),
    "MatMul of several": case("MatMul", {"x": ["n", 5, 8], "z": ["n", 8, 3]}),
    "MatMul with several constants": case("MatMul", ROWS, weights(1, 8, 3)),
    "BatchNormalization": case(
        "BatchNormalization", IMAGE, weights(4), weights(4, seed=1), weights(4, seed=2), np.abs(weights(4, seed=3)) + 0.5
    ),
    "InstanceNormalization": case("InstanceNormalization", IMAGE, weights(4), weights(4, seed=1)),
    "LayerNormalization": case("LayerNormalization", ROWS, weights(8), weights(8, seed=1)),
    "LayerNormalization over two axes": case("LayerNormalization", ROWS, weights(5, 8), axis=1),
    "GroupNormalization": case("GroupNormalization", IMAGE, weights(4), weights(4, seed=1), opset=21, num_groups=2),
    "LSTM": case("LSTM", {"x": [5, "n", 8]}, weights(1, 12, 8), weights(1, 12, 3), weights(1, 24), hidden_size=3),
    "LSTM, both ways": case(
        "LSTM", {"x": [5, "n", 8]}, weights(2, 12, 8), weights(2, 12, 3), hidden_size=3, direction="bidirectional",
        outputs=("y", "h", "c"),
    ),
    "GRU": case(
        "GRU", {"x": [5, "n", 8]}, weights(1, 9, 8), weights(1, 9, 3), weights(1, 18), hidden_size=3, linear_before_reset=1
    ),
    "RNN": case("RNN", {"x": [5, "n", 8]}, weights(1, 3, 8), weights(1, 3, 3), weights(1, 6), hidden_size=3),
    "Scaler": case("Scaler", FLAT, domain="ai.onnx.ml", offset=[0.5], scale=[2.0]),
    "ArrayFeatureExtractor": case("ArrayFeatureExtractor", FLAT, ints(1, 5, 2), domain="ai.onnx.ml"),
    "Swish": case("Swish", FLAT, opset=24, alpha=1.5),
    "Log": chain(("Abs", ["x"], "a"), ("Log", ["a"], "y")),
    "Sqrt": chain(("Abs", ["x"], "a"), ("Sqrt", ["a"], "y")),
    "ReduceLogSum": chain(("Abs", ["x"], "a"), ("ReduceLogSum", ["a"], "y", {"axes": [1]})),
    "And": truth("And", "p", "q"),
    "Or": truth("Or", "p", "q"),
    "Xor": truth("Xor", "p", "q"),
    "Not": truth("Not", "p"),
    "Equal": truth("Equal", "p", "q"),
    "Less": truth("Less", "x", "one"),
    "GreaterOrEqual": truth("GreaterOrEqual", "x", "one"),
    "Where": chain(
        ("Greater", ["x", "zero"], "p"), ("Where", ["p", "x", "other"], "y"),
        constants={"zero": np.float32(0), "other": weights(1, 8)},
    ),
    "ArgMin": chain(("ArgMin", ["x"], "a", {"axis": 1, "keepdims": 0}), ("Cast", ["a"], "y", {"to": FLOAT})),
    "ArgMin, kept": chain(("ArgMin", ["x"], "a", {"axis": -1}), ("Cast", ["a"], "y", {"to": FLOAT})),
    "CastLike": chain(("Shape", ["x"], "s"), ("CastLike", ["s", "x"], "a"), ("ReduceMax", ["a"], "b"), ("Mul", ["x", "b"], "y")),
    "Shape and Size": chain(
        ("Shape", ["x"], "s"), ("Size", ["x"], "z"), ("Mul", ["s", "z"], "a"), ("Cast", ["a"], "b", {"to": FLOAT}),
        ("ReduceMax", ["b"], "c"), ("Mul", ["x", "c"], "y"),
    ),
    "ConstantOfShape": chain(
        ("Shape", ["x"], "s"), ("ConstantOfShape", ["s"], "a", {"value": numpy_helper.from_array(np.array([2.5], np.float32))}),
        ("Add", ["x", "a"], "y"),
    ),
    "Range": chain(
        ("Range", ["from", "to", "by"], "r"), ("Cast", ["r"], "a", {"to": FLOAT}), ("Add", ["x", "a"], "y"),
        constants={"from": np.int64(3), "to": np.int64(19), "by": np.int64(2)},
    ),
    "OneHot": chain(
        ("ArgMax", ["x"], "a", {"axis": 1, "keepdims": 0}), ("OneHot", ["a", "depth", "values"], "y", {"axis": -1}),
        constants={"depth": np.int64(9), "values": np.array([0.5, 2], np.float32)},
    ),
    "OneHot in front": chain(
        ("ArgMax", ["x"], "a", {"axis": 1, "keepdims": 0}), ("OneHot", ["a", "depth", "values"], "y", {"axis": 0}),
        constants={"depth": np.int64(8), "values": np.array([0, 1], np.float32)},
    ),
    "GatherElements": chain(
        ("GatherElements", ["x", "i"], "y", {"axis": 1}), constants={"i": ints(*range(7, 2, -1))[None].repeat(3, 0)},
        inputs={"x": [3, 8]},
    ),
    "GatherND": chain(("GatherND", ["x", "i"], "y"), constants={"i": PLACES}, inputs={"x": [3, 8]}),
    "ScatterND": chain(
        ("ScatterND", ["x", "i", "u"], "y"), constants={"i": PLACES, "u": weights(2)}, inputs={"x": [3, 8]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_op_gives_what_onnx_runtime_gives(name, tmp_path):
    nodes, inputs, constants, outputs, opset = CASES[name]
    path = write(tmp_path / "op.onnx", nodes, inputs, constants, outputs, opset)
    generator = torch.Generator().manual_seed(1)
    example = [
        torch.randn([3 if size == "n" else size for size in shape], generator=generator) for shape in inputs.values()
    ]
    module, _ = read_onnx(path, example)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = session.run(list(outputs), {name: value.numpy() for name, value in zip(inputs, example, strict=True)})
    with torch.no_grad():
        made = module(*example)
    for mine, theirs in zip(made if isinstance(made, tuple) else (made,), wanted, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(np.asarray(mine), theirs, rtol=1e-5, atol=2e-5)


def test_an_embedding_takes_whole_numbers(tmp_path):
    table = weights(9, 4)
    path = write(tmp_path / "op.onnx", [node("Gather", ["c", "x"])], {"x": (["n", 5], TensorProto.INT64)}, {"c": table})
    module, _ = read_onnx(path)
    tokens = torch.randint(0, 9, (3, 5), generator=torch.Generator().manual_seed(0))
    assert torch.equal(module(tokens).detach(), torch.tensor(table)[tokens])
    assert [type(one).__name__ for one in module.children()] == ["Embedding"]


@pytest.mark.parametrize(
    ("op", "domain"),
    [("QuantizeLinear", ""), ("QLinearConv", ""), ("MatMulInteger", ""), ("MatMulNBits", "com.microsoft")],
)
def test_a_quantised_file_is_refused_with_what_to_give_instead(op, domain, tmp_path):
    path = write(tmp_path / "q.onnx", [node(op, ["x", "c"], name="conv/Q", domain=domain)], FLAT, {"c": weights(8)})
    with pytest.raises(PenjingError, match=rf"quantised already: node 'conv/Q' is a .*{op}\. Give the float file"):
        read_onnx(path)


def test_an_op_without_a_form_is_named_with_its_node_and_what_to_do(tmp_path):
    nodes = [node("Relu", ["x"], ["r"]), node("NonZero", ["r"], name="head/nz")]
    path = write(tmp_path / "op.onnx", nodes, FLAT)
    with pytest.raises(PenjingError, match=r"The op NonZero \(node 'head/nz'\) can't be read.*outputs=\['r'\]"):
        read_onnx(path)
    module, example = read_onnx(path, outputs=["r"])
    assert torch.equal(module(*example), example[0].relu())


REFUSED = {
    "it counts places within each sample": case(
        "GatherND", {"x": [2, 3, 8]}, np.zeros((2, 1, 1), np.int64), batch_dims=1
    ),
    "a runtime joined an activation or a sum to it": case(
        "FusedConv", IMAGE, weights(6, 4, 3, 3), domain="com.microsoft", activation="Relu"
    ),
    "only heights and widths are resized": case("Resize", IMAGE, None, np.array([1, 2, 1, 1], np.float32)),
    "linear_before_reset=0": case("GRU", {"x": [5, 2, 4]}, weights(1, 9, 4), weights(1, 9, 3), hidden_size=3),
    "it runs backwards alone": case(
        "RNN", {"x": [5, 2, 4]}, weights(1, 3, 4), weights(1, 3, 3), hidden_size=3, direction="reverse"
    ),
    "its windows have gaps": case("AveragePool", IMAGE, kernel_shape=[2, 2], dilations=[2, 2], opset=19),
    "its input 'z' is computed while the network runs": case(
        "BatchNormalization", {"x": ["n", 4], "z": [4]}, weights(4), weights(4), weights(4)
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_pytorch_cannot_do_of_an_op_is_said(why, tmp_path):
    nodes, inputs, constants, outputs, opset = REFUSED[why]
    with pytest.raises(PenjingError, match=rf"node 'the/node'.*{why}"):
        read_onnx(write(tmp_path / "op.onnx", nodes, inputs, constants, outputs, opset))


def test_every_op_of_the_table_is_known_to_onnx():
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    ours = {op for op in FORMS if "." not in op}
    assert ours <= known and len(ours) > 100


def test_every_form_has_a_case():
    found = {
        f"{one.domain}.{one.op_type}".lstrip(".")
        for one in (n for nodes, *_ in [*CASES.values(), *REFUSED.values()] for n in nodes)
    }
    quantised = {op for op in FORMS if FORMS[op] is FORMS["QLinearConv"]}
    assert set(FORMS) - quantised <= found, sorted(set(FORMS) - quantised - found)
