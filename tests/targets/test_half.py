"""Files whose float weights take 16 bits: half as large, and equal to a graph of rounded weights."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.targets import available, check_parity, find_target, lower, open_artifact, profile, run
from penjing.targets._half import as_half, halved

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "store-weights-in-16-bits.md"
STORING = ("onnxruntime", "openvino", "litert")
OTHERS = ("torch", "executorch")
USABLE = {one.name for one in available() if one.usable}


def usable(names):
    return [
        pytest.param(name, marks=pytest.mark.skipif(name not in USABLE, reason=f"{name} isn't installed"))
        for name in names
    ]


class Net(nn.Module):
    """Convolutions, one of them depthwise, with norms, a residual sum and a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.relu(self.depthwise(x + self.body(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    model = Net().train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 16, 16))  # norms of which each channel has its own
    return pj.capture(model.eval(), torch.randn(2, 3, 16, 16))


def written(graph, target, folder, weights):
    return lower(graph, target, folder / f"{weights}{find_target(target).suffix}", weights=weights)


@pytest.mark.parametrize("target", usable(STORING))
def test_a_file_is_half_as_large_and_computes_what_rounded_weights_do(graph, target, tmp_path):
    wide, half = (written(graph, target, tmp_path, weights) for weights in ("float32", "float16"))
    weights = sum(value.numel() for value in graph.parameters() if value.dim() > 1)
    assert wide.size_bytes - half.size_bytes == pytest.approx(2 * weights, rel=0.1)
    assert check_parity(half, halved(graph)).max_abs_error < 1e-5
    assert 1e-6 < check_parity(half, graph).max_abs_error < 1e-2


@pytest.mark.parametrize("target", usable(STORING))
def test_the_kernels_are_those_of_a_file_of_32_bits(graph, target, tmp_path):
    wide, half = (written(graph, target, tmp_path, weights) for weights in ("float32", "float16"))
    found = [
        {(row.module, row.node, row.macs) for row in profile(file) if row.macs} for file in (wide, half)
    ]  # what is multiplied, and for which layer
    assert found[0] == found[1] and sum(macs for _, _, macs in found[0]) == graph.cost().macs


@pytest.mark.parametrize("target", usable(STORING))
def test_a_file_is_opened_again(graph, target, tmp_path):
    half, x = written(graph, target, tmp_path, "float16"), torch.randn(1, 3, 16, 16)
    assert torch.equal(run(open_artifact(half.path, target), x), run(half, x))


@pytest.mark.parametrize("target", usable(STORING))
def test_integers_stay_integers_beside_halves(graph, target, tmp_path):
    batches = [torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))]
    rounded = pj.quantize(graph, batches, target=target, exclude=["body.0"])
    wide, half = (written(rounded, target, tmp_path, weights) for weights in ("float32", "float16"))
    assert wide.size_bytes - half.size_bytes == pytest.approx(2 * 32 * 32 * 9, rel=0.05), "the excluded layer's alone"
    integer = [{row.module for row in profile(file) if row.integer and row.macs} for file in (wide, half)]
    assert integer[0] == integer[1] and {"stem.0", "head"} <= integer[0]
    # A value that lies between two integers may be rounded to the other one.
    assert check_parity(half, rounded).max_abs_error < 0.1


@pytest.mark.parametrize("target", usable(OTHERS))
def test_a_target_without_halves_refuses_and_writes_nothing(graph, target, tmp_path):
    with pytest.raises(PenjingError, match=f"Files for '{target}' hold float weights in 32 bits alone"):
        written(graph, target, tmp_path, "float16")
    assert not list(tmp_path.iterdir())


def test_other_weights_are_refused(graph):
    with pytest.raises(PenjingError, match="weights"):
        lower(graph, weights="float8")


def test_the_graph_stays_as_it_was(graph, tmp_path):
    before = {name: value.clone() for name, value in graph.tensors().items()}
    written(graph, "onnxruntime", tmp_path, "float16")
    assert all(torch.equal(value, before[name]) for name, value in graph.tensors().items())


def test_weights_are_rounded_to_the_nearest_and_vectors_are_not(graph):
    made = halved(graph).tensors()
    folded = pj.graph.fold_batch_norms(graph).tensors()
    assert torch.equal(made["head.weight"], folded["head.weight"].half().float())
    assert torch.equal(made["head.bias"], folded["head.bias"])
    assert torch.equal(made["stem.0.weight"], folded["stem.0.weight"].half().float()), "with its norm in it"


def test_a_weight_beyond_the_largest_half_stays_in_32_bits(tmp_path):
    layer = nn.Linear(32, 32)
    with torch.no_grad():
        layer.weight[0, 0] = 1e5
    graph = pj.capture(layer, torch.randn(2, 32))
    file = written(graph, "onnxruntime", tmp_path, "float16")
    assert check_parity(file, graph).max_abs_error / 1e5 < 1e-6
    assert not [node for node in onnx.load(file.path).graph.node if node.op_type == "Cast"]


def test_two_layers_of_one_weight_share_the_half(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(32, 32), nn.Linear(32, 32)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(torch.relu(self.one(x)))

    graph = pj.capture(Tied(), torch.randn(2, 32))
    file = written(graph, "onnxruntime", tmp_path, "float16")
    halves = [one for one in onnx.load(file.path).graph.initializer if one.data_type == onnx.TensorProto.FLOAT16]
    assert len(halves) == 1 and check_parity(file, halved(graph)).max_abs_error < 1e-6


@pytest.mark.parametrize("entries", [255, 256])
def test_only_large_constants_of_several_axes_that_fit_exactly_are_stored_in_halves(entries):
    exact = np.full((entries, 1), 0.5, np.float32)
    assert (as_half(exact) is not None) == (entries >= 256)
    assert as_half(exact[:, 0]) is None and as_half(exact.astype(np.float64)) is None
    assert as_half(np.full((256, 1), 0.1, np.float32)) is None and as_half(np.full((256, 1), 1e6, np.float32)) is None


@pytest.mark.skipif("litert" not in USABLE, reason="litert isn't installed")
def test_known_counts_stand_at_the_ops_that_they_are_of(tmp_path):
    """A file of LiteRT's notes the multiply-accumulates of some ops by their places, which the widening ops shift."""
    from penjing.targets.litert._file import notes_of, read

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 1)).eval()
    graph = pj.capture(model, torch.randn(2, 3, 16, 16))
    graph = pj.quantize(graph, [torch.randn(16, 3, 16, 16)], target="litert", exclude=["2"])
    wide, half = (written(graph, "litert", tmp_path, weights) for weights in ("float32", "float16"))
    macs = []
    for file in (wide, half):
        model = read(file.path.read_bytes())
        known = json.loads(notes_of(model)).get("macs", {})
        codes = [model.operatorCodes[one.opcodeIndex].builtinCode for one in model.subgraphs[0].operators]
        macs.append(sorted((codes[int(place)], count) for place, count in known.items()))
        assert sum(row.macs for row in profile(file)) == graph.cost().macs
    assert macs[0] == macs[1] != []


def test_the_page_says_how(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10)).eval()
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(code, {"graph": pj.capture(model, torch.randn(2, 3, 32, 32))})
    share, error = map(float, capsys.readouterr().out.split())
    assert 0.5 < share < 0.55 and 0 < error < 1e-3
    assert "howto/store-weights-in-16-bits.md" in (PAGE.parents[2] / "README.md").read_text()


@pytest.mark.parametrize("target", usable(("onnxruntime", "openvino", "executorch")))
def test_a_graph_of_halves_is_lowered_as_it_is(target, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval().half()
    graph = pj.capture(model, torch.randn(2, 3, 8, 8).half())
    file = lower(graph, target, tmp_path / f"m{find_target(target).suffix}")
    assert file.inputs[0].dtype == "float16" and run(file, torch.randn(1, 3, 8, 8).half()).dtype == torch.float16
    assert check_parity(file, graph).max_abs_error < 5e-3
