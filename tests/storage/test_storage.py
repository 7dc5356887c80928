import contextlib
import copy
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from penjing.errors import PenjingError
from penjing.evidence.memory import fingerprint_of
from penjing.graph import Graph, Option, Place, capture, load


class Everything(nn.Module):
    """Batch norm, dropout, attention, recurrence, constants, buffers, slices, symbolic sizes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.cell = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 5)
        self.twin = nn.Linear(8, 5)
        self.twin.weight = self.head.weight
        self.frozen = nn.Parameter(torch.randn(8), requires_grad=False)
        self.register_buffer("hidden", torch.randn(8), persistent=False)

    def forward(self, x, *, scale=1.0):
        y = F.relu(self.norm(self.conv(x)), inplace=True)[:, :, ::2]
        y = F.dropout(y, 0.1, self.training).flatten(2).transpose(1, 2) * self.frozen + self.hidden
        y = self.attention(y, y, y, need_weights=False)[0]
        y, (h, _) = self.cell(y)
        y = F.pad(y, (0, 0, 1, 0), value=-float("inf")).amax(1).clamp(max=9.0) + torch.tensor(0.5)
        return {"a": self.head(y) * scale, "b": [self.twin(y), h.view(-1, 8)], "n": y.shape[0]}


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    graph = capture(Everything(), torch.randn(2, 3, 6, 6), kwargs={"scale": 2.0})
    graph.masks["conv.weight"] = torch.rand(8, 3, 3, 3) > 0.5
    graph.plan += [Option(Place("group", "conv"), "prune", {"keep": 8})]
    return graph


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()), torch.randn(2, 3))


def parts(graph: Graph) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        graph.save(Path(folder) / "m.penjing")
        with zipfile.ZipFile(Path(folder) / "m.penjing") as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def edited(graph: Graph, path: Path, edit) -> Path:
    """Writes the file of `graph` with an edit of its description."""
    members = parts(graph)
    description = json.loads(members["graph.json"])
    edit(description)
    return write(path, {**members, "graph.json": json.dumps(description).encode()})


def call(description, target):
    return next(node for node in description["nodes"] if target in node["target"])


# Round trips


def test_a_saved_graph_comes_back_the_same(graph, tmp_path):
    graph.save(tmp_path / "m.penjing")
    other = load(tmp_path / "m.penjing")
    x = torch.randn(3, 3, 6, 6)
    leaves = torch.utils._pytree.tree_leaves
    assert all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b))
        for a, b in zip(leaves(other(x, scale=2.0)), leaves(graph(x, scale=2.0)), strict=True)
    )
    assert list(other.state_dict()) == list(graph.state_dict())
    assert other.ties() == graph.ties() and other.transient() == graph.transient()
    assert other.plan == graph.plan and other.name == "Everything" and other.batch is None
    assert other.lost_in_training == graph.lost_in_training
    assert torch.equal(other.masks["conv.weight"], graph.masks["conv.weight"])
    assert {n: p.requires_grad for n, p in other.named_parameters()} == {
        n: p.requires_grad for n, p in graph.named_parameters()
    }
    assert [n.meta.get("source") for n in other.program.graph.nodes if n.op == "call_function"] == [
        n.meta.get("source") for n in graph.program.graph.nodes if n.op == "call_function"
    ]
    assert other.cost() == graph.cost()
    assert other.inputs == graph.inputs


def test_a_graph_loaded_twice_is_the_one_that_was_loaded_once(graph, small, tmp_path):
    for one in (graph, small):
        one.save(tmp_path / "m.penjing")
        once = load(tmp_path / "m.penjing")
        once.save(tmp_path / "m.penjing")
        assert fingerprint_of(load(tmp_path / "m.penjing")) == fingerprint_of(once)
    assert fingerprint_of(once) == fingerprint_of(small)  # without symbols nothing is written in another way


def test_a_loaded_graph_trains_as_the_saved_one(graph, tmp_path):
    graph.save(tmp_path / "m.penjing")
    a, b = copy.deepcopy(graph).train(), load(tmp_path / "m.penjing").train()
    x = torch.randn(3, 3, 6, 6)
    results = []
    for one in (a, b):
        torch.manual_seed(3)
        out = one(x, scale=2.0)
        (out["a"].sum() + out["b"][0].sum()).backward()
        results.append((out["a"], one.tensor("conv.weight").grad, one.tensor("norm.running_mean")))
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_a_graph_saved_while_training_is_stored_in_evaluation(graph, tmp_path):
    training = copy.deepcopy(graph).train()
    training.save(tmp_path / "m.penjing")
    other = load(tmp_path / "m.penjing")
    x = torch.randn(3, 3, 6, 6)
    assert not other.training and torch.equal(other(x, scale=2.0)["a"], graph(x, scale=2.0)["a"])
    assert training.training


def test_a_new_process_that_never_saw_the_class_gives_identical_outputs(graph, tmp_path):
    graph.save(tmp_path / "m.penjing")
    x = torch.randn(3, 3, 6, 6)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from penjing.graph import load\n"
        "y = load(sys.argv[1])(torch.load(sys.argv[2]), scale=2.0)\n"
        "torch.save(y['a'], sys.argv[3])"
    )
    arguments = [str(tmp_path / name) for name in ("m.penjing", "x.pt", "y.pt")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=tmp_path)
    assert torch.equal(torch.load(tmp_path / "y.pt"), graph(x, scale=2.0)["a"])


def test_a_fixed_batch_and_free_axes_come_back(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(4, -1)

    capture(Fixed(), torch.randn(4, 3)).save(tmp_path / "a.penjing")
    assert load(tmp_path / "a.penjing").batch == 4
    capture(nn.Embedding(7, 3), torch.randint(0, 7, (2, 5)), dynamic={"input": (1,)}).save(tmp_path / "b.penjing")
    other = load(tmp_path / "b.penjing")
    assert other(torch.randint(0, 7, (3, 9))).shape == (3, 9, 3)
    assert other.example_inputs()[0].max() < 7


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_come_back(small, tmp_path, dtype):
    other = copy.deepcopy(small).to(dtype)
    other.save(tmp_path / "m.penjing")
    x = torch.randn(2, 3, dtype=dtype)
    assert torch.equal(load(tmp_path / "m.penjing")(x), other(x))


def test_weights_in_channels_last_are_stored(tmp_path):
    graph = capture(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 6, 6)).to(memory_format=torch.channels_last)
    graph.save(tmp_path / "m.penjing")
    x = torch.randn(2, 3, 6, 6)
    assert torch.allclose(load(tmp_path / "m.penjing")(x), graph(x), atol=1e-6)


def test_a_path_that_cannot_be_written_is_named_with_the_systems_words(small, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.penjing" / "inner").mkdir(parents=True)
    with pytest.raises(PenjingError, match=r"m\.penjing can't be written: (Not a directory|File exists)"):
        small.save(tmp_path / "file" / "m.penjing")
    with pytest.raises(PenjingError, match=r"folder\.penjing can't be written: Is a directory"):
        small.save(tmp_path / "folder.penjing")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.penjing"]


class Masked(nn.Module):
    """A causal mask and a padding mask, joined as transformer libraries join theirs; bits of integers."""

    def forward(self, x, keep):
        place = torch.arange(x.shape[1])
        seen = (place[:, None] >= place) & keep[:, None] | (place[:, None] == place)
        bits = (place << 1 ^ 3) >> 1
        mask = torch.zeros_like(seen, dtype=x.dtype).masked_fill(~seen, -float("inf"))
        return (x @ x.transpose(1, 2) + mask).softmax(-1) @ x + bits[:, None]


def test_the_operators_of_masks_come_back(tmp_path):
    x, keep = torch.randn(2, 5, 3), torch.rand(2, 5) > 0.3
    graph = capture(Masked(), (x, keep), dynamic={"x": (0, 1), "keep": (0, 1)})
    ops = {str(node.target) for node in graph.program.graph.nodes}
    assert {"aten.__and__.Tensor", "aten.__or__.Tensor", "aten.__xor__.Scalar", "aten.__lshift__.Scalar"} <= ops
    graph.save(tmp_path / "m.penjing")
    x, keep = torch.randn(3, 7, 3), torch.rand(3, 7) > 0.3
    assert torch.equal(load(tmp_path / "m.penjing")(x, keep), Masked()(x, keep))


def test_modules_whose_names_are_no_identifiers_come_back(tmp_path):
    layers = {name: nn.Linear(4, 4) for name in ("block1-0", "-", "1")}
    graph = capture(nn.Sequential(OrderedDict(layers)), torch.randn(2, 4))
    graph.save(tmp_path / "m.penjing")
    other = load(tmp_path / "m.penjing")
    x = torch.randn(3, 4)
    assert torch.equal(other(x), graph(x)) and list(other.state_dict()) == list(graph.state_dict())


def test_an_op_that_no_file_can_hold_is_refused_when_saving(tmp_path):
    with torch.library._scoped_library("storage_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
        graph = capture(nn.Linear(2, 2), torch.randn(2, 2))
        call = next(node for node in graph.program.graph.nodes if node.op == "call_function")
        call.target, call.args = torch.ops.storage_test.twice.default, call.args[:1]
        with pytest.raises(PenjingError, match=r"storage_test\.twice\.default can't be stored"):
            graph.save(tmp_path / "m.penjing")
    assert not list(tmp_path.iterdir())


# Files that are no files of ours


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(PenjingError, match="no file"):
        load(tmp_path / "absent.penjing")


def forbid(path: Path, message: str) -> None:
    with pytest.raises(PenjingError, match=message):
        load(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x04K*."])
def test_what_is_no_zip_is_refused(tmp_path, content):
    (tmp_path / "m.penjing").write_bytes(content)
    forbid(tmp_path / "m.penjing", "it was cut short, or is no .penjing file")


def test_extra_missing_and_doubled_members_are_refused(small, tmp_path):
    members = parts(small)
    for name in ("../evil.py", "data.pkl", "/etc/passwd"):
        forbid(write(tmp_path / "m.penjing", {**members, name: b"x"}), "exactly")
    for name in members:
        forbid(write(tmp_path / "m.penjing", {k: v for k, v in members.items() if k != name}), "exactly")
    path = write(tmp_path / "m.penjing", members)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("graph.json", members["graph.json"])
    forbid(path, "exactly")
    assert not (tmp_path.parent / "evil.py").exists()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(small, tmp_path, monkeypatch):
    members = parts(small)
    path = tmp_path / "m.penjing"
    unpacked = []
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda member, size=-1: unpacked.append(member.name))
    for name in ("graph.json", "plan.json"):
        write(path, {**members, name: b" " * (65 * 2**20)}, zipfile.ZIP_DEFLATED)
        forbid(path, "larger than|compressed")
    assert not unpacked
    forbid(write(path, members, zipfile.ZIP_DEFLATED), "compressed")
    assert not unpacked


def test_a_bomb_that_lies_about_its_size_is_refused(small, tmp_path):
    members = parts(small)
    path = write(tmp_path / "m.penjing", {**members, "plan.json": b"[" + b" " * 2**20 + b"]"})
    content = path.read_bytes()
    size = struct.pack("<L", 2**20 + 2)
    path.write_bytes(content.replace(size, struct.pack("<L", 2)))
    forbid(path, "valid|can't")


@pytest.mark.parametrize(
    "target",
    [
        "aten.from_file.default",
        "aten.__class__.default",
        "aten.__class__.__and__",
        "aten.__init__.__globals__",
        "aten.__init__.default",
        "aten.__dict__.clear",
        "aten.__getattr__.default",
        "aten.__getattribute__.default",
        "aten.__reduce__.default",
        "aten.__reduce_ex__.default",
        "aten.__contains__.Tensor",
        "aten.__getitem__.t",
        "aten.__iand__.Tensor",
        "aten.__lshift__.Tensor_out",
        "aten.__and__.__class__",
        "aten.__and__.__call__",
        "aten.__and__.__globals__",
        "aten.__and__.nothing",
        "__class__.__and__.Tensor",
        "quantized_decomposed.__and__.Tensor",
        "aten.relu_.default",
        "aten.add.out",
        "aten.relu.__init__",
        "aten.save.default",
        "prims.add.default",
        "prim.device.default",
        "profiler._record_function_enter.default",
        "os.system",
        "builtins.eval",
        "operator.attrgetter",
        "operator.methodcaller",
        "torch.load",
        "torch.sym_int.__call__",
        "math.__loader__",
        "aten..default",
        "relu",
        "",
        "a.b.c.d",
    ],
)
def test_ops_beyond_the_allow_list_are_refused(small, tmp_path, target):
    def edit(description):
        call(description, "aten.relu")["target"] = target

    with pytest.raises(PenjingError):
        load(edited(small, tmp_path / "m.penjing", edit))


def test_another_version_is_refused(small, tmp_path):
    for version in (0, 2, "1", None, [1]):
        forbid(edited(small, tmp_path / "m.penjing", lambda d, v=version: d.update(penjing=v)), "version is not 1")


def test_references_to_later_unknown_or_own_nodes_are_refused(small, tmp_path):
    for name in ("nothing", "relu", "output"):
        path = edited(small, tmp_path / "m.penjing", lambda d, n=name: call(d, "aten.relu").update(args=[{"node": n}]))
        if name == "relu":
            name = call(json.loads(parts(small)["graph.json"]), "aten.relu")["name"]
            path = edited(small, path, lambda d, n=name: call(d, "aten.relu").update(args=[{"node": n}]))
        forbid(path, "valid")


def edit_node(**changes):
    return lambda d: call(d, "aten.relu").update(**changes)


def edit_input(**changes):
    return lambda d: d["signature"]["leaves"][0].update(**changes)


HOSTILE = {
    "a negative shape": edit_input(shape=[-2, 3]),
    "a huge shape": edit_input(shape=[2**40, 3]),
    "a huge free size": edit_input(shape=[2**62, 3]),
    "an unknown dtype": edit_input(dtype="object"),
    "a dtype that is none": edit_input(dtype="load"),
    "no name": edit_input(name=None),
    "an axis that isn't there": edit_input(dynamic=[7]),
    "another width": edit_input(shape=[2, 5]),
    "a module call": edit_node(op="call_module", target="net"),
    "a method call": edit_node(op="call_method", target="__reduce__"),
    "a name of code": edit_node(name="x; import os"),
    "a keyword": edit_node(name="lambda"),
    "an unknown keyword argument": edit_node(kwargs={"nothing": 1}),
    "an argument of code": edit_node(kwargs={"__class__": 1}),
    "an unknown kind of value": edit_node(args=[{"code": "1"}]),
    "two kinds at once": edit_node(args=[{"node": "linear", "float": 1}]),
    "a deep nesting": edit_node(args=[json.loads("[" * 500 + "]" * 500)]),
    "no nodes": lambda d: d.update(nodes=[]),
    "no output": lambda d: d["nodes"].pop(),
    "two outputs": lambda d: d["nodes"].append(d["nodes"][-1]),
    "nodes of another type": lambda d: d.update(nodes="relu"),
    "no tensors": lambda d: d.update(tensors=[]),
    "a tensor of another name": lambda d: d["tensors"][0].update(name="__class__"),
    "a tensor with an empty name": lambda d: d["tensors"][0].update(name=""),
    "a tensor that shadows a method": lambda d: d["tensors"][0].update(name="forward"),
    "a tensor that shadows the program": lambda d: d["tensors"][0].update(name="program"),
    "a tie to nothing": lambda d: d.update(ties={"0.weight": "nothing"}),
    "a tie in a circle": lambda d: d.update(ties={"0.weight": "0.bias", "0.bias": "0.weight"}),
    "a mask without a tensor": lambda d: d.update(masks=["nothing"]),
    "a specification of another kind": lambda d: d.update(out_spec={"set": ["leaf"]}),
    "a specification of other leaves": lambda d: d.update(out_spec={"tuple": ["leaf", "leaf"]}),
    "an input specification of other leaves": lambda d: d["signature"].update(spec={"tuple": ["leaf"]}),
    "a batch of words": lambda d: d.update(batch="two"),
    "a flag on an op without one": edit_node(switches=True),
    "a dropout on an op without one": edit_node(dropout=0.5),
    "a dropout of words": edit_node(dropout="half"),
    "another placeholder": lambda d: d["nodes"].insert(0, {**d["nodes"][0], "op": "placeholder", "name": "z"}),
    "a placeholder of code": lambda d: next(n for n in d["nodes"] if n["op"] == "placeholder").update(
        target="x=print()"
    ),
    "an integer parameter": lambda d: d["tensors"][-1].update(parameter=True, trained=True),
    "a list for a description": lambda d: d.clear(),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_description_that_makes_no_sense_is_refused(small, tmp_path, what):
    with pytest.raises(PenjingError):
        load(edited(small, tmp_path / "m.penjing", HOSTILE[what]))


def test_attributes_of_the_interpreter_cannot_be_reached_through_tensor_names(small, tmp_path):
    for name in ("__init__.weight", "0.__class__", "0..weight", "."):
        forbid(edited(small, tmp_path / "m.penjing", lambda d, n=name: d["tensors"][0].update(name=n)), "")


def test_loading_runs_no_code_and_computes_nothing(small, tmp_path):
    """A node that would take hours and gigabytes costs nothing until the graph is called: else this test never ends.

    It is refused, too, unless the caller allows that much.
    """

    def edit(description):
        call(description, "aten.relu").update(target="aten.matmul.default", args=[{"node": "big"}, {"node": "big"}])
        position = next(i for i, n in enumerate(description["nodes"]) if "matmul" in n["target"])
        big = {"op": "call_function", "args": [[60000, 60000]], "kwargs": {}, "module": "", "source": ""}
        description["nodes"].insert(position, {**big, "name": "big", "target": "aten.ones.default"})

    path = edited(small, tmp_path / "m.penjing", edit)
    load(path, largest=2**40)
    forbid(path, "'big'.*14,400,000,000 bytes to run.*largest=")


# Names end in the code that torch.fx generates: none may bring code of its own


# No dot in it, at which a name would be split.
INJECTED = 'setattr(__import__("torch"), "ran", True)'
NAMES_OF_CODE = [
    f'x", {INJECTED} or self) #',
    f'x" + str({INJECTED}) + "',
    f"x\n    {INJECTED}\n    #",
    f"x; {INJECTED}",
    f'x\\", {INJECTED}) #',
    f"(lambda: {INJECTED})()",
    "lambda",
    "self",
    "__import__",
    "a b",
    "a\u2028b",
    "",
]


def rename(value, old, new):
    """Replaces a name everywhere in a description, as a key and as a value."""
    if isinstance(value, dict):
        return {rename(k, old, new): rename(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [rename(v, old, new) for v in value]
    return new if value == old else value


def nothing_ran(path: Path) -> None:
    """Loads a file and calls what comes out: an error of ours, and no injected code has run."""
    try:
        with pytest.raises(PenjingError):
            load(path)(torch.randn(2, 3))
        assert not hasattr(torch, "ran")
    finally:
        torch.__dict__.pop("ran", None)


@pytest.mark.parametrize("prefix", ["", "0."])
@pytest.mark.parametrize("name", [name for name in NAMES_OF_CODE if name not in ("lambda", "self")])
def test_the_name_of_a_tensor_runs_no_code(small, tmp_path, name, prefix):
    name = prefix + name
    members = parts(small)
    description = rename(json.loads(members["graph.json"]), "0.weight", name)
    weights = load_tensors(members["weights.safetensors"])
    weights[name] = weights.pop("0.weight")
    renamed = {"graph.json": json.dumps(description).encode(), "weights.safetensors": save_tensors(weights)}
    nothing_ran(write(tmp_path / "m.penjing", {**members, **renamed}))


@pytest.mark.parametrize("name", NAMES_OF_CODE)
@pytest.mark.parametrize("where", ["input", "linear", "relu", "keyword", "placeholder", "output"])
def test_no_other_name_runs_code(small, tmp_path, name, where):
    def edit(description):
        nodes = description["nodes"]
        if where == "keyword":
            call(description, "aten.relu")["kwargs"] = {name: 1}
        elif where in ("placeholder", "output"):
            next(node for node in nodes if node["op"] == where).update(name=name)
        else:
            old = next(node for node in nodes if where in node["target"])["name"]
            changed = rename(description, old, name)
            description.clear()
            description.update(changed)

    nothing_ran(edited(small, tmp_path / "m.penjing", edit))


@pytest.mark.parametrize("kind", ["dtype", "device", "memory_format", "layout", "float", "slice", "node"])
def test_no_value_of_an_argument_runs_code(small, tmp_path, kind):
    def edit(description):
        call(description, "aten.relu")["kwargs"] = {"value": {kind: f"cpu), {INJECTED}) #"}}

    nothing_ran(edited(small, tmp_path / "m.penjing", edit))


@pytest.mark.parametrize("text", [f"', {INJECTED}) #", f"\\', {INJECTED}) #", f"'\n    {INJECTED}\n    #"])
def test_a_string_among_the_arguments_stays_a_string(small, tmp_path, text):
    def edit(description):
        call(description, "aten.relu")["args"].append(text)

    with pytest.raises((PenjingError, TypeError, RuntimeError)):
        load(edited(small, tmp_path / "m.penjing", edit))(torch.randn(2, 3))
    assert not hasattr(torch, "ran")


@pytest.mark.parametrize("op", ["placeholder", "get_attr"])
def test_what_is_no_call_takes_no_arguments(small, tmp_path, op):
    def edit(description):
        next(node for node in description["nodes"] if node["op"] == op).update(args=[1])

    forbid(edited(small, tmp_path / "m.penjing", edit), "takes arguments")


def test_a_model_with_a_tensor_that_has_no_safe_name_is_not_saved(tmp_path):
    graph = capture(nn.Linear(2, 2), torch.randn(2, 2))
    graph.set_tensor('a "b"', torch.ones(1))
    with pytest.raises(PenjingError, match="letters, digits"):
        graph.save(tmp_path / "m.penjing")
    assert not list(tmp_path.iterdir())


# Fuzzing


def attempt(content: bytes) -> None:
    """Loads bytes and calls what comes out: only a PenjingError may leave, or a graph."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.penjing"
        path.write_bytes(content)
        with contextlib.suppress(PenjingError):
            assert isinstance(load(path), Graph)
        assert os.listdir(folder) == ["m.penjing"]


@pytest.fixture(scope="module")
def whole(small):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts(small).items():
            archive.writestr(name, content)
    return buffer.getvalue()


quick = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes_are_refused_or_harmless(whole, flips):
    content = bytearray(whole)
    for position, value in flips:
        content[position % len(content)] = value
    attempt(bytes(content))


@quick
@given(start=st.integers(0, 10**6), length=st.integers(1, 500))
def test_cut_files_are_refused(whole, start, length):
    start %= len(whole)
    attempt(whole[:start] + whole[start + length :])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**40)
    | st.floats()
    | st.text(max_size=6)
    | st.just({"node": "linear"}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=5,
)


def places(value, path=()):
    """All places in nested JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@quick
@given(where=st.integers(0, 10**6), value=JSON)
def test_changed_descriptions_are_refused_or_harmless(small, where, value):
    members = parts(small)
    description = json.loads(members["graph.json"])
    every = list(places(description))[1:]
    *outer, last = every[where % len(every)]
    inner = description
    for key in outer:
        inner = inner[key]
    inner[last] = value
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {**members, "graph.json": json.dumps(description).encode()}.items():
            archive.writestr(name, content)
    attempt(buffer.getvalue())
