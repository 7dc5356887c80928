import hashlib
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph, capture
from penjing.models import load_model, load_weights
from penjing.targets import lower
from penjing.tasks import Classification

FACTORIES = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))

def with_inputs():
    return model(), torch.zeros(2, 3, 8, 8)

def number():
    return 7
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "nets.py").write_text(FACTORIES)
    return tmp_path / "nets.py"


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def images(classes=None):
    batch = (torch.randn(5, 3, 8, 8), torch.zeros(5, dtype=torch.int64))
    return Data(None, None, [batch], Classification(2), classes=classes)


def test_a_zoo_network_has_as_many_outputs_as_the_data_has_classes():
    assert load_model("zoo:resnet20").model.linear.out_features == 10
    loaded = load_model("zoo:resnet20", data=images(classes=("a", "b", "c")))
    assert loaded.model.linear.out_features == 3 and loaded.name == "resnet20"
    assert loaded.example_inputs[0].shape == (2, 3, 8, 8)


def test_an_unknown_zoo_network_is_named_with_the_nearest():
    with pytest.raises(PenjingError, match=r"Unknown network 'resnt20'\. Did you mean 'resnet20'"):
        load_model("zoo:resnt20")


def test_a_factory_gives_a_model_or_a_model_with_its_inputs(file):
    assert load_model(f"{file}:with_inputs").example_inputs.shape == (2, 3, 8, 8)
    loaded = load_model(f"{file}:model", data=images())
    assert loaded.example_inputs[0].shape == (2, 3, 8, 8) and loaded.name == "model"
    graph = loaded.graph()
    assert isinstance(graph, Graph) and graph.name == "model" and graph.batch is None


def test_what_is_no_module_or_has_no_inputs_is_refused(file):
    with pytest.raises(PenjingError, match=r"nets\.py:number returned an int; it must return an nn\.Module"):
        load_model(f"{file}:number")
    with pytest.raises(PenjingError, match=r"No example inputs are known for .*return \(model, example_inputs\), or"):
        load_model(f"{file}:model")


def test_a_saved_graph_and_an_exported_program_are_models_too(tmp_path):
    model, x = net().eval(), torch.randn(2, 3, 8, 8)
    capture(model, x).save(tmp_path / "kept.penjing")
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=({0: batch},)), tmp_path / "kept.pt2")
    for name in ("kept.penjing", "kept.pt2"):
        loaded = load_model(str(tmp_path / name))
        assert loaded.hashes["model_file"] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        graph = loaded.graph()
        assert graph.name == "kept"
        torch.testing.assert_close(graph(x), model(x))


def test_an_onnx_file_is_a_model_with_the_sizes_of_the_data(tmp_path):
    model, path = net().eval(), tmp_path / "net.onnx"
    lower(capture(model, torch.zeros(2, 3, 8, 8)), target="onnxruntime", path=path)
    loaded = load_model(str(path), data=images())
    assert (
        loaded.name == "net" and set(loaded.hashes) == {"model_file"} and loaded.example_inputs[0].shape == (2, 3, 8, 8)
    )
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(loaded.graph()(x), model(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(PenjingError, match=r"A \.onnx file holds its own weights"):
        load_model(str(path), tmp_path / "w.pt")


def test_a_pickled_module_is_no_model_and_the_error_says_how_it_becomes_one(tmp_path):
    torch.save(net(), tmp_path / "whole.pt")
    with pytest.raises(
        PenjingError, match=r"object of torch\.nn.*state_dict.*file\.py:function.*\.save\('model\.penjing'\)"
    ):
        load_model(str(tmp_path / "whole.pt"))


def test_a_damaged_exported_program_is_refused(tmp_path):
    (tmp_path / "kept.pt2").write_bytes(b"PK\x03\x04")
    with pytest.raises(PenjingError, match=r"kept\.pt2 can't be read as an exported program: ."):
        load_model(str(tmp_path / "kept.pt2"))


@pytest.mark.parametrize("name", ["none.penjing", "none.pt2", "none.onnx"])
def test_a_model_file_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(PenjingError, match=name):
        load_model(str(tmp_path / name))


def test_a_penjing_file_takes_no_other_weights(tmp_path):
    with pytest.raises(PenjingError, match="leave --weights out"):
        load_model(str(tmp_path / "kept.penjing"), tmp_path / "w.safetensors")


@pytest.mark.parametrize("form", ["safetensors", "pt", "state_dict", "model", "data_parallel", "without_counters"])
def test_weights_load_from_the_usual_forms(tmp_path, form):
    torch.manual_seed(1)
    state = {
        name: torch.rand_like(value, dtype=torch.float32).to(value.dtype) for name, value in net().state_dict().items()
    }
    stored = {
        "state_dict": {"state_dict": state, "epoch": 3},
        "model": {"model": state},
        "data_parallel": {f"module.{name}": value for name, value in state.items()},
        "without_counters": {name: value for name, value in state.items() if "num_batches" not in name},
    }.get(form, state)
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    save_file(state, path) if form == "safetensors" else torch.save(stored, path)
    model = net()
    load_weights(model, path)
    for name, value in model.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(value, state[name]), name


def test_keys_and_shapes_that_do_not_fit_are_listed_first_few_only(tmp_path):
    state = net().state_dict()
    state["3.weight"] = torch.zeros(7, 144)
    del state["0.bias"]
    for index in range(9):
        state[f"extra.{index}"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pt")
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(PenjingError) as caught:
        load_weights(model, tmp_path / "w.pt")
    assert str(caught.value) == (
        f"{tmp_path}/w.pt doesn't fit Sequential. missing: 0.bias. not in the model: extra.0, extra.1, extra.2, extra.3 "
        "and 5 more. other shapes: 3.weight: (7, 144) in the file, (2, 144) in the model."
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_is_not_weights_only_is_refused_without_running_it(tmp_path):
    trap = tmp_path / "ran"
    torch.save({"weight": Hostile(str(trap))}, tmp_path / "w.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Hostile(str(trap))))
    torch.save(net(), tmp_path / "whole.pt")
    for name in ("w.pt", "raw.pt", "whole.pt"):
        with pytest.raises(PenjingError, match=rf"{name} holds no plain weights.*torch\.save\(model\.state_dict\(\)"):
            load_weights(net(), tmp_path / name)
    assert not trap.exists()
    with pytest.raises(PenjingError, match=r"an object of torch\.nn\..*Then name a function that builds the model"):
        load_weights(net(), tmp_path / "whole.pt")


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"no weights", b"PK\x03\x04 no zip", b"\x08\0\0\0\0\0\0\0{}      ", bytes(100)]
)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_damaged_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PenjingError, match=name):
        load_weights(net(), tmp_path / name)


def test_what_is_no_state_dict_or_no_file_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(PenjingError, match=r"list\.pt holds no state dict \(names with tensors\), but a list"):
        load_weights(net(), tmp_path / "list.pt")
    torch.save({"lr": 0.1}, tmp_path / "dict.pt")
    with pytest.raises(PenjingError, match=r"dict\.pt holds no state dict"):
        load_weights(net(), tmp_path / "dict.pt")
    with pytest.raises(PenjingError, match=r"There is no weights file .*none\.pt"):
        load_weights(net(), tmp_path / "none.pt")
    with pytest.raises(PenjingError, match="There is no weights file"):
        load_weights(net(), tmp_path)


ODD = {
    "sparse": (lambda weight: weight.to_sparse(), r"2\.weight: sparse or nested \(torch\.sparse_coo\)"),
    "sparse rows": (lambda weight: weight.to_sparse_csr(), r"2\.weight: sparse or nested \(torch\.sparse_csr\)"),
    "meta": (lambda weight: weight.to("meta"), r"2\.weight: a shape on 'meta' without values"),
    "quantised": (
        lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        r"2\.weight: quantised \(torch\.qint8\)",
    ),
    "complex": (lambda weight: weight.to(torch.complex64), r"2\.weight: torch\.complex64 in the file, torch\.float32"),
    "whole": (lambda weight: weight.to(torch.int8), r"2\.weight: torch\.int8 in the file, torch\.float32 in the model"),
    "truth": (lambda weight: weight > 0, r"2\.weight: torch\.bool in the file"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_is_no_plain_one_is_refused_and_named(tmp_path, kind):
    change, says = ODD[kind]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save({**before, "2.weight": change(before["2.weight"])}, tmp_path / "w.pt")
    with pytest.raises(PenjingError, match=rf"{says}|holds no plain weights"):
        load_weights(model, tmp_path / "w.pt")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_plain(tmp_path, dtype):
    model = nn.Linear(2, 2)
    torch.save({"weight": torch.eye(2, dtype=dtype), "bias": torch.ones(2, dtype=dtype)}, tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model.weight, torch.eye(2)) and model.weight.dtype == torch.float32


def test_a_script_module_is_no_weights_file(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(PenjingError, match="holds no plain weights"):
        load_weights(nn.Linear(2, 2), tmp_path / "w.pt")
