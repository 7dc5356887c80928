"""Networks from ONNX files: what they compute, how they compress, and files that would do harm."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import penjing as pj
from importing.onnx_files import node, write
from penjing import zoo
from penjing.errors import PenjingError
from penjing.importing.onnx import read_onnx
from penjing.importing.onnx.check import check
from penjing.importing.onnx.example import inputs_of
from penjing.importing.onnx.file import read
from penjing.importing.onnx.ops import FORMS


def perturb(net):
    """Gives batch norms other statistics than those of a fresh network."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net.eval()


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "squeezenet_cifar"])
def test_a_written_network_comes_back_with_the_same_outputs_and_channels(name, tmp_path):
    torch.manual_seed(0)
    net = perturb(zoo.build(name))
    example = zoo.example_input(name)[0] if isinstance(zoo.example_input(name), tuple) else zoo.example_input(name)
    original = pj.capture(net, example)
    graph = pj.from_onnx(pj.lower(original, target="onnxruntime", path=tmp_path / f"{name}.onnx").path)
    x = torch.randn(3, *example.shape[1:])
    assert graph.name == name and graph.batch is None
    torch.testing.assert_close(graph(x), net(x), rtol=1e-4, atol=1e-4)
    ours, theirs = (sorted(group.units for group in pj.channels(one).groups) for one in (graph, original))
    assert ours == theirs
    layers = {name.rpartition(".")[0] for name, _ in graph.named_parameters()}
    assert layers <= {name for name, _ in net.named_modules()}


def test_what_was_read_is_pruned_quantised_and_written_again(tmp_path):
    torch.manual_seed(0)
    data = pj.data.digits()
    net = perturb(zoo.resnet20())
    path = pj.lower(pj.capture(net, torch.randn(2, 3, 32, 32)), target="onnxruntime", path=tmp_path / "net.onnx").path
    graph = pj.from_onnx(path)
    small = pj.quantize(pj.prune(graph, amount=0.5), data)
    assert sum(one.numel() for one in small.parameters()) < 0.3 * sum(one.numel() for one in graph.parameters())
    written = onnx.load(pj.lower(small, target="onnxruntime", path=tmp_path / "small.onnx").path)
    assert sum(one.op_type == "QuantizeLinear" for one in written.graph.node) > 15


class Attention(nn.Module):
    """Sizes of the input's in the code: in the file they are chains of Shape, Gather, Concat and Reshape."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out, self.norm = nn.Linear(16, 48), nn.Linear(16, 16), nn.LayerNorm(16)

    def forward(self, x):
        batch, steps, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, steps, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        return x + self.out(((q @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2).reshape(batch, steps, width))


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_shapes_that_the_file_computes_leave_the_batch_and_the_steps_free(dynamo, tmp_path):
    torch.manual_seed(0)
    net, x = Attention().eval(), torch.randn(2, 7, 16)
    axes = {"dynamic_shapes": ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},)} if dynamo else {
        "dynamic_axes": {"x": {0: "batch", 1: "steps"}}
    }  # fmt: skip
    path = tmp_path / "net.onnx"
    torch.onnx.export(net, (x,), path, dynamo=dynamo, external_data=False, input_names=["x"], verbose=False, **axes)
    with pytest.raises(
        PenjingError, match=r"the input 'x' leaves the sizes of its axes 1 .*example_inputs=torch\.zeros"
    ):
        pj.from_onnx(path)
    graph = pj.from_onnx(path, x, dynamic={"x": (0, 1)})
    assert {"qkv", "out", "norm"} == {name.partition(".")[0] for name, _ in graph.named_parameters()}
    for shape in ((1, 7, 16), (5, 4, 16)):
        y = torch.randn(shape)
        torch.testing.assert_close(graph(y), net(y), rtol=1e-4, atol=1e-5)
    assert sum(one.numel() for one in pj.prune(graph, amount=0.5).parameters()) < sum(
        one.numel() for one in graph.parameters()
    )


@pytest.mark.filterwarnings("ignore")
def test_a_file_with_a_batch_of_one_takes_any(tmp_path):
    torch.manual_seed(0)
    net, path = Attention().eval(), tmp_path / "net.onnx"
    torch.onnx.export(net, (torch.randn(1, 7, 16),), path, dynamo=False, input_names=["x"])
    assert any(
        numpy_helper.to_array(one.attribute[0].t).ravel()[:1] == [1]
        for one in onnx.load(path).graph.node
        if one.op_type == "Constant"
    )
    graph, x = pj.from_onnx(path), torch.randn(5, 7, 16)
    assert graph.batch is None
    torch.testing.assert_close(graph(x), net(x), rtol=1e-4, atol=1e-5)


def test_a_file_whose_shapes_hold_for_one_sample_alone_keeps_its_batch(tmp_path):
    constants = {"two": np.array([2, 2], np.int64), "m": np.eye(2, dtype=np.float32), "one": np.array([1, 4], np.int64)}
    nodes = [node("Reshape", ["x", "two"], ["r"]), node("MatMul", ["r", "m"], ["p"]), node("Reshape", ["p", "one"])]
    path = write(tmp_path / "net.onnx", nodes, {"x": [1, 4]}, constants)
    with pytest.warns(UserWarning, match=r"written for 1 sample\(s\) at a time"):
        graph = pj.from_onnx(path)
    assert graph.batch == 1


def test_what_is_added_behind_a_layer_is_its_bias_and_nodes_without_names_get_some(tmp_path):
    values = np.random.default_rng(0)
    constants = {
        "w": values.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "b": values.normal(size=(1, 4, 1, 1)).astype(np.float32),
        "m": values.normal(size=(4, 5)).astype(np.float32),
        "c": values.normal(size=5).astype(np.float32),
    }
    nodes = [
        node("Conv", ["x", "w"], ["1"], name="/stem/stem.0/conv/Conv", pads=[0, 0, 1, 1]),
        node("Add", ["1", "b"], ["2"]),
        node("GlobalAveragePool", ["2"], ["3"]),
        node("Flatten", ["3"], ["4"]),
        node("MatMul", ["4", "m"], ["5"], name="forward"),
        node("Add", ["c", "5"]),
    ]
    module, _ = read_onnx(write(tmp_path / "net.onnx", nodes, {"x": ["n", 3, 8, 8]}, constants))
    assert [name for name, _ in module.named_parameters()] == [
        "stem.0.conv.weight", "stem.0.conv.bias", "forward_2.weight", "forward_2.bias",
    ]  # fmt: skip
    assert type(module.stem._modules["0"].conv) is nn.Conv2d


def test_equal_vectors_that_a_file_stores_once_are_not_tied(tmp_path):
    constants = {"m": np.eye(4, dtype=np.float32), "b": np.ones(4, np.float32)}
    nodes = [node("Gemm", ["x", "m", "b"], ["1"]), node("Gemm", ["1", "m", "b"])]
    module, _ = read_onnx(write(tmp_path / "net.onnx", nodes, {"x": ["n", 4]}, constants))
    first, second = module.children()
    assert first.weight is second.weight and first.bias is not second.bias


def test_an_example_of_another_shape_is_refused(tmp_path):
    path = write(tmp_path / "net.onnx", [node("Relu", ["x"])], {"x": ["batch", 3, 8]})
    with pytest.raises(PenjingError, match=r"the input 'x' has the shape \[batch, 3, 8\], and \[2, 4, 8\] is given"):
        pj.from_onnx(path, torch.zeros(2, 4, 8))
    with pytest.raises(PenjingError, match=r"takes 1 inputs \(x\), and 2 are given"):
        pj.from_onnx(path, [torch.zeros(2, 3, 8)] * 2)


def test_a_size_of_minus_one_is_a_free_one(tmp_path):
    graph = pj.from_onnx(write(tmp_path / "net.onnx", [node("Relu", ["x"])], {"x": [-1, 3, 8]}))
    assert graph.batch is None and graph(torch.ones(5, 3, 8)).shape == (5, 3, 8)


def test_numbers_of_16_bits_become_float32(tmp_path):
    nodes = [node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), node("Gemm", ["h", "m"], ["g"])]
    nodes += [node("Cast", ["g"], to=TensorProto.FLOAT)]
    module, _ = read_onnx(write(tmp_path / "net.onnx", nodes, {"x": ["n", 4]}, {"m": np.eye(4, dtype=np.float16)}))
    assert {one.dtype for one in module.parameters()} == {torch.float32}


# Files that would do harm


def weighted(path, location, size=16, **more):
    """Writes a file whose only weight lies elsewhere."""
    tensor = TensorProto(name="m", dims=[4, 4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))
    graph = helper.make_graph(
        [node("Gemm", ["x", "m"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_empty_tensor_value_info("y")],
        [tensor],
    )
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return path


def test_external_data_beside_the_file_is_read(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"0000" + np.eye(4, dtype=np.float32).tobytes())
    module, example = read_onnx(weighted(tmp_path / "net.onnx", "w.bin", offset=4, length=64))
    assert torch.equal(module(*example), example[0])


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "link.bin", "", "folder/../../w.bin"])
def test_external_data_elsewhere_is_refused(location, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "w.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    (inside / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(PenjingError, match="outside of the file's own folder"):
        read_onnx(weighted(inside / "net.onnx", location))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"offset": 8}, "needs more than"),
        ({"length": 6400}, "has 64 bytes"),
        ({"offset": -4}, "has 64 bytes"),
        ({"offset": "x"}, "invalid literal"),
    ],
)
def test_external_data_of_another_length_is_refused(more, says, tmp_path):
    (tmp_path / "w.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    with pytest.raises(PenjingError, match=f"tensor 'm'.*{says}"):
        read_onnx(weighted(tmp_path / "net.onnx", "w.bin", **more))


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x07" + bytes(40), bytes(100)])
def test_what_is_no_onnx_file_is_refused(content, tmp_path):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(PenjingError, match=r"net\.onnx can't be read as an ONNX file"):
        pj.from_onnx(tmp_path / "net.onnx")
    with pytest.raises(PenjingError, match="There is no file"):
        pj.from_onnx(tmp_path / "none.onnx")


@pytest.mark.parametrize("dims", [[2**40], [2**20, 2**20], [-1], [4, 5]])
def test_a_shape_that_a_weight_does_not_fill_is_refused(dims, tmp_path):
    tensor = TensorProto(
        name="m", dims=dims, data_type=TensorProto.FLOAT, raw_data=np.eye(2, dtype=np.float32).tobytes()
    )
    path = write(tmp_path / "net.onnx", [node("Gemm", ["x", "m"])], {"x": ["n", 4]})
    model = onnx.load(path)
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PenjingError, match="tensor 'm'"):
        read_onnx(path)


def test_a_tensor_that_few_bytes_blow_up_is_refused(tmp_path):
    nodes = [node("ConstantOfShape", ["s"], ["z"], name="bomb"), node("Add", ["x", "z"])]
    path = write(tmp_path / "net.onnx", nodes, {"x": ["n", 4]}, {"s": np.array([2**20, 2**20], np.int64)})
    with pytest.raises(PenjingError, match=r"node 'bomb'.*larger than any network needs"):
        read_onnx(path)


@pytest.mark.parametrize("name", ["__class__", "forward", "../../etc", "a b\n", "0", "training", "é"])
def test_any_name_of_a_node_gives_a_path(name, tmp_path):
    nodes = [node("Gemm", ["x", "m"], ["1"], name=name), node("Relu", ["1"], name=f"{name}/")]
    graph = pj.from_onnx(write(tmp_path / "net.onnx", nodes, {"x": ["n", 4]}, {"m": np.eye(4, dtype=np.float32)}))
    assert torch.equal(graph(-torch.ones(3, 4)), torch.zeros(3, 4))


def test_a_node_without_a_setting_that_it_needs_is_named(tmp_path):
    path = write(tmp_path / "net.onnx", [node("MaxPool", ["x"], name="pool")], {"x": ["n", 3, 8, 8]})
    with pytest.raises(PenjingError, match=r"node 'pool' \(MaxPool\) can't be read: TypeError"):
        pj.from_onnx(path)


def test_a_value_that_nothing_gives_is_named(tmp_path):
    path = write(tmp_path / "net.onnx", [node("Add", ["x", "gone"], name="sum")], {"x": ["n", 4]})
    with pytest.raises(PenjingError, match=r"node 'sum' \(Add\) reads 'gone', which nothing before it gives"):
        pj.from_onnx(path)
    with pytest.raises(PenjingError, match=r"Unknown value in .* 'z'"):
        pj.from_onnx(path, outputs=["z"])


# What the check against ONNX Runtime finds


def doctored(monkeypatch, op, call):
    """Gives an op a wrong form."""
    monkeypatch.setitem(FORMS, op, lambda node: node.function(call))


def test_wrong_scores_beside_large_boxes_are_refused(tmp_path, monkeypatch):
    doctored(monkeypatch, "Sigmoid", lambda x: x.sigmoid() * 0.5)
    constants = {"wide": np.float32(640)}
    nodes = [node("Mul", ["x", "wide"], ["boxes"]), node("Sigmoid", ["x"], ["scores"])]
    for axis, shape in ((2, ["n", 5, 4]), (1, ["n", 4, 5])):
        both = [*nodes, node("Concat", ["boxes", "scores"], axis=axis)]
        with pytest.raises(PenjingError, match=r"'y' differs by 0\..* between PyTorch and ONNX Runtime"):
            pj.from_onnx(write(tmp_path / "net.onnx", both, {"x": shape}, constants))


def test_nan_where_onnx_runtime_gives_numbers_is_refused(tmp_path, monkeypatch):
    doctored(monkeypatch, "Relu", lambda x: torch.where(x < 0, torch.nan, x))
    with pytest.raises(PenjingError, match="NaN"):
        pj.from_onnx(write(tmp_path / "net.onnx", [node("Relu", ["x"])], {"x": ["n", 4]}))


def test_whole_numbers_must_be_equal(tmp_path, monkeypatch):
    doctored(monkeypatch, "ArgMax", lambda x: torch.where(x.argmax(1) == 7, 6, x.argmax(1)))
    path = write(tmp_path / "net.onnx", [node("ArgMax", ["x"], axis=1, keepdims=0)], {"x": ["n", 8]})
    with pytest.raises(PenjingError, match="'y' holds whole numbers, of which"):
        pj.from_onnx(path, torch.arange(16.0).reshape(2, 8))


def test_a_row_of_zeros_is_normalised_to_zeros(tmp_path):
    path = write(tmp_path / "net.onnx", [node("LpNormalization", ["x"], axis=-1, p=2)], {"x": ["n", 4]})
    module, _ = read_onnx(path, torch.tensor([[0.0, 0, 0, 0], [3, 4, 0, 0]]))
    assert torch.equal(module(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_a_file_that_onnx_runtime_cannot_load_is_refused(tmp_path):
    path = write(tmp_path / "net.onnx", [node("Relu", ["x"])], {"x": ["n", 4]}, opset=99)
    with pytest.raises(PenjingError, match="ONNX Runtime can't run it"):
        pj.from_onnx(path)


def test_a_mistake_of_our_own_in_the_feeds_is_not_said_to_be_onnx_runtimes(tmp_path):
    file = read(write(tmp_path / "net.onnx", [node("Relu", ["x"])], {"x": ["n", 4]}))
    with pytest.raises(ValueError, match="zip"):
        check(file, nn.ReLU(), inputs_of(file), (), ["y"], rows=False)


def test_a_value_that_the_caller_names_has_no_later_bias_in_it(tmp_path):
    constants = {"w": np.eye(4, dtype=np.float32), "b": np.ones(4, np.float32)}
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"])]
    path = write(tmp_path / "net.onnx", nodes, {"x": ["n", 4]}, constants)
    m, y = pj.from_onnx(path, outputs=["m", "y"])(torch.zeros(3, 4))
    assert torch.equal(m, torch.zeros(3, 4)) and torch.equal(y, torch.ones(3, 4))


@pytest.mark.parametrize(("batch", "mixes"), [(1, False), (1, True), (8, True)])
def test_a_fixed_batch_is_freed_only_where_samples_do_not_mix(tmp_path, batch, mixes):
    mixed = [node("ReduceMean", ["a"], ["r"], axes=[0]), node("Add", ["a", "r"])]
    nodes = [node("MatMul", ["x", "w"], ["a"]), *(mixed if mixes else [node("Relu", ["a"])])]
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    path = write(tmp_path / "net.onnx", nodes, {"x": [batch, 4]}, {"w": weight})
    if not mixes:
        assert pj.from_onnx(path).batch is None
        return
    with pytest.warns(UserWarning, match=f"written for {batch} sample"):
        graph = pj.from_onnx(path)
    assert graph.batch == batch
    module, example = read_onnx(path)
    with pytest.raises(PenjingError, match=f"takes {batch} sample"):
        module(torch.cat([example[0], example[0]]))


def test_a_copy_computes_with_its_own_weights(tmp_path):
    path = write(
        tmp_path / "net.onnx", [node("MatMul", ["x", "w"])], {"x": ["n", 4]}, {"w": np.eye(4, dtype=np.float32)}
    )
    module, example = read_onnx(path)
    other = copy.deepcopy(module)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    assert not other(*example).any() and torch.equal(module(*example), example[0])


@pytest.mark.parametrize(("calls", "told"), [("next", "stand for .* nodes"), ("itself", "calls itself")])
def test_functions_that_would_never_end_are_refused(tmp_path, calls, told):
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(20):
        inner = "Relu" if level == 0 and calls == "next" else f"F{level - 1 if calls == 'next' else level}"
        domain = "" if inner == "Relu" else "own"
        nodes = [
            helper.make_node(inner, ["x"], ["a"], domain=domain),
            helper.make_node(inner, ["a"], ["y"], domain=domain),
        ]
        functions.append(helper.make_function("own", f"F{level}", ["x"], ["y"], nodes, imports))
    path = write(tmp_path / "net.onnx", [node("F19", ["x"], domain="own")], {"x": ["n", 4]})
    model = onnx.load(str(path))
    model.functions.extend(functions)
    model.opset_import.append(imports[1])
    onnx.save(model, str(path))
    with pytest.raises(PenjingError, match=told):
        pj.from_onnx(path)


@pytest.mark.parametrize("of", ["x", "c"])
@pytest.mark.parametrize(
    ("op", "how"), [("Tile", [1, 2**20]), ("Expand", [2**20, 1, 2**10]), ("Pad", [0, 0, 0, 2**30])]
)
def test_an_op_that_makes_more_than_memory_holds_is_refused_before_it_does(tmp_path, of, op, how):
    constants = {"how": np.array(how, np.int64), "c": np.ones((2, 2**10), np.float32)}
    nodes = [node(op, [of, "how"], ["a"]), node("Add", ["a", "x"])]
    path = write(tmp_path / "net.onnx", nodes, {"x": [2, 2**10]}, constants)
    with pytest.raises(PenjingError, match=r"entries, and 268,435,456 are the most"):
        read_onnx(path)
