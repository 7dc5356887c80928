"""`factorize`: chains compute what their layers computed, on every geometry; what is left alone is said."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.factorization import decompositions
from penjing.factorization.decompositions import find
from penjing.graph import Plan
from penjing.report import words


def full(name, shape):
    return list(find(name).full(shape))


@settings(max_examples=20)
@given(st.data())
def test_at_full_rank_nothing_changes_on_any_geometry(data):
    draw = data.draw
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride, dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))), draw(st.integers(1, 2))
    padding = draw(st.sampled_from([0, 1, (1, 0), "valid"] + (["same"] if stride == (1, 1) else [])))
    layer = nn.Conv2d(4, 6, kernel, stride, padding, dilation, bias=draw(st.booleans()))
    names = [name for name in decompositions if not find(name).unfit((6, 4, *kernel))]
    name, form = draw(st.sampled_from(sorted(names))), draw(st.sampled_from(["chain", "unfold"]))
    if name == "cp":
        form = "chain"
    graph = pj.capture(nn.Sequential(layer, nn.ReLU()).eval(), torch.randn(2, 4, 9, 10))
    small = pj.factorize(graph, method=name, ranks={"0": full(name, (6, 4, *kernel))}, form=form)
    for batch in (1, 3):
        x = torch.randn(batch, 4, 9, 10)
        assert torch.allclose(small(x), graph(x), atol=1e-4)
    assert (small.tensors().keys() & {"0.weight"}) == set() and "0.0.weight" in small.tensors()


@pytest.mark.parametrize(
    ("model", "shape", "names"),
    [
        (nn.Sequential(nn.Linear(8, 6)), (3, 8), ["svd"]),
        (nn.Sequential(nn.Linear(8, 6, bias=False)), (3, 5, 8), ["svd"]),
        (nn.Sequential(nn.Conv1d(4, 6, 3, padding="same")), (2, 4, 9), ["svd", "tucker2", "cp", "tt"]),
        (nn.Sequential(nn.Conv3d(3, 4, (2, 3, 2), stride=(1, 2, 1))), (2, 3, 5, 6, 5), ["svd", "tucker2", "cp", "tt"]),
    ],
)
def test_linear_layers_and_other_numbers_of_axes(model, shape, names):
    graph = pj.capture(model.eval(), torch.randn(shape))
    x = torch.randn(shape)
    for name in names:
        size = tuple(graph.tensor("0.weight").shape)
        small = pj.factorize(graph, method=name, ranks={"0": full(name, size)})
        assert torch.allclose(small(x), graph(x), atol=1e-4)


class Net(nn.Module):
    """What is factorised, beside all that is left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.conv2, self.depthwise = nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 3, groups=32)
        self.up, self.head = nn.ConvTranspose2d(32, 8, 2), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.conv1(x)))
        y = torch.relu(self.depthwise(torch.relu(self.conv2(y))))
        return self.head(self.up(y).mean((2, 3)))


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return pj.capture(Net().eval(), torch.randn(2, 3, 10, 10))


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(1)
    mix = torch.randn(3, 3)  # channels that depend on each other, as those of images do
    batches = [
        (torch.einsum("ij,njhw->nihw", mix, torch.randn(16, 3, 10, 10)), torch.randint(5, (16,))) for _ in range(3)
    ]
    return pj.Data(train=batches, calibration=batches, validation=batches, task=pj.tasks.Classification(5))


def test_what_is_left_alone_and_why_stands_in_the_plan(graph, data):
    small = pj.factorize(graph, ranks="speedup:2", data=data, round_to=1)
    steps = {step.place.path: step for step in small.plan}
    assert list(steps) == ["conv1", "conv2", "depthwise", "up", "head"], "in the order in which they are computed"
    assert {path: step.found.get("reason") for path, step in steps.items()} == {
        "conv1": None, "conv2": None, "depthwise": "grouped", "up": "kind", "head": None,
    }  # fmt: skip
    assert steps["conv2"].setting["method"] == "tucker2" and steps["head"].setting["method"] == "svd"
    told = [words(step.to_json()) for step in small.plan]
    assert told[2] == "left alone: its channels are in groups" and told[1].startswith("tucker2, rank ")
    assert told[1].endswith("of the outputs' energy lost")
    assert small.cost().macs < graph.cost().macs
    rows = {row.module for row in small.cost().rows}
    assert {"conv1", "conv2", "head"} <= rows, "what a chain computes counts to the module that it stands for"


@pytest.mark.parametrize("metric", ["weights", "outputs", "asymmetric", "loss"])
@pytest.mark.parametrize("form", ["chain", "unfold"])
def test_the_plan_alone_gives_the_same_weights_bit_for_bit(graph, data, metric, form, tmp_path):
    before = copy.deepcopy(graph)
    small = pj.factorize(graph, ranks="speedup:2", metric=metric, form=form, data=data, round_to=1)
    small.plan.write(tmp_path / "plan.json")
    again = pj.apply(graph, tmp_path / "plan.json", data)
    assert again.program.code == small.program.code and again.plan == small.plan
    assert all(torch.equal(tensor, again.tensor(name)) for name, tensor in small.tensors().items())
    assert all(torch.equal(tensor, before.tensor(name)) for name, tensor in graph.tensors().items())
    assert Plan.from_json(json.loads(json.dumps(small.plan.to_json()))) == small.plan


def distance(small, graph, data):
    with torch.no_grad():
        pairs = [(small(x), graph(x)) for x, _ in data.calibration]
    return float(sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs))


def test_metrics_that_look_at_data_are_nearer_to_the_original_than_weights_alone(graph, data):
    found = {
        metric: distance(
            pj.factorize(graph, ranks={"conv1": (6, 2), "conv2": (6, 6)}, metric=metric, data=data), graph, data
        )
        for metric in ("weights", "outputs", "asymmetric", "loss")
    }
    assert found["outputs"] < 0.5 * found["weights"] and found["asymmetric"] <= found["outputs"]
    assert found["loss"] < found["weights"]


def test_the_mean_of_each_layers_outputs_stays(graph, data):
    small = pj.factorize(graph, ranks={"conv1": (2, 1)}, data=data)
    name = next(
        node.name for node in graph.program.graph.nodes if node.meta.get("module") == "conv1" and "conv" in node.name
    )
    means = []
    for one in (graph, small):
        with torch.no_grad():
            tapped = one.with_outputs([name])
            means.append(torch.cat([tapped(x)[1][name] for x, _ in data.calibration]).mean((0, 2, 3)))
    assert torch.allclose(*means, atol=1e-4)
    without = pj.factorize(graph, ranks={"conv1": (2, 1)}, metric="weights").tensor("conv1.2.bias")
    assert torch.equal(without, graph.tensor("conv1.bias")), "nothing is known of outputs without data"


def test_a_mapping_takes_these_layers_alone_and_a_number_all(graph):
    small = pj.factorize(graph, ranks={"conv2": 4})
    assert [(step.place.path, step.after) for step in small.plan] == [("conv2", [4, 4])]
    small = pj.factorize(graph, method="svd", ranks=2)
    assert {tuple(step.after) for step in small.plan if "reason" not in step.found} == {(2,)}
    small = pj.factorize(graph, method="tucker2", ranks=(8, 2), include=["conv1"])
    assert [(step.place.path, step.before, step.after) for step in small.plan] == [("conv1", [27, 3], [8, 2])]


class Words(nn.Module):
    """Looks up twice in one table, and once in a table whose weight a linear layer has, too."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.tied = nn.Embedding(50, 12, padding_idx=0), nn.Embedding(20, 12)
        self.head = nn.Linear(12, 20, bias=False)
        self.head.weight = self.tied.weight

    def forward(self, first, second):
        return self.head(self.table(first) + self.table(second) + self.tied(second % 20))


def test_an_embedding_becomes_a_narrow_table_and_a_product():
    ids = torch.randint(50, (2, 7)), torch.randint(50, (2, 7))
    graph = pj.capture(Words().eval(), ids)
    small = pj.factorize(graph, ranks={"table": 12})
    assert torch.allclose(small(*ids), graph(*ids), atol=1e-5)
    assert small.tensor("table.0.weight").shape == (50, 12) and small.tensor("table.1.weight").shape == (12, 12)
    small = pj.factorize(graph, ranks="ratio:0.25", round_to=1)
    assert [(step.place.path, step.after) for step in small.plan] == [("table", [3])], "the tied table is left"
    table = small.tensor("table.0.weight") @ small.tensor("table.1.weight").T
    tail = torch.linalg.svdvals(graph.tensor("table.weight").detach())[3:].square().sum()
    assert float((table - graph.tensor("table.weight")).square().sum()) == pytest.approx(float(tail), rel=1e-4)
    assert small.cost().params < graph.cost().params
    more = torch.randint(50, (3, 7)), torch.randint(50, (3, 7))
    assert small(*more).shape == (3, 7, 20)


@pytest.mark.parametrize("metric", ["weights", "outputs"])
def test_the_result_shares_no_memory_with_the_original(graph, data, metric, monkeypatch):
    module = __import__("penjing.factorization._carrying_out", fromlist=["decompose"])
    decompose = module.decompose

    def fails_for_conv2(decomposition, weighting, ranks):
        if ranks == (5, 5):
            raise PenjingError("It doesn't converge.")
        return decompose(decomposition, weighting, ranks)

    monkeypatch.setattr(module, "decompose", fails_for_conv2)
    small = pj.factorize(graph, ranks={"conv1": (6, 2), "conv2": (5, 5)}, metric=metric, data=data)
    assert [step.found.get("reason") for step in small.plan] == [None, "It doesn't converge."]
    assert torch.equal(small.tensor("conv2.weight"), graph.tensor("conv2.weight"))
    places = {tensor.data_ptr() for tensor in graph.tensors().values()}
    assert not places & {tensor.data_ptr() for tensor in small.tensors().values()}


def test_tied_layers_share_one_chain():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(8, 8)

        def forward(self, x):
            return self.one(torch.relu(self.one(x)))

    graph = pj.capture(Twice().eval(), torch.randn(2, 8))
    small = pj.factorize(graph, ranks={"one": 8})
    x = torch.randn(3, 8)
    assert torch.allclose(small(x), graph(x), atol=1e-5) and len(list(small.parameters())) == 3


def test_factorised_layers_are_pruned_quantised_trained_and_stored(graph, data, tmp_path):
    small = pj.factorize(graph, ranks={"conv1": (16, 3), "conv2": (16, 16)}, data=data)
    thinner = pj.prune(small, 0.5, include=["conv2"])
    assert thinner.tensor("conv2.1.weight").shape[0] < 16, "the new axes are channels like others"
    pj.recover(thinner, data, teacher=graph, epochs=1, precision="float32", channels_last=False, progress=False)
    integer = pj.quantize(thinner, data)
    integer.save(tmp_path / "a.penjing")
    x = torch.randn(2, 3, 10, 10)
    assert torch.equal(pj.load(tmp_path / "a.penjing")(x), integer(x))
    artifact = pj.lower(integer, "onnxruntime", tmp_path / "a.onnx")
    assert pj.targets.integer_macs(artifact, integer.cost()) > 0.85, "no link goes back to floating point"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"method": "tucker3"}, "tucker2"),
        ({"ranks": "energi:0.9"}, "energy"),
        ({"ranks": "energy:1.5"}, "above 0 and at most 1"),
        ({"ranks": "speedup:1"}, "above 1"),
        ({"metric": "output"}, "outputs"),
        ({"form": "folded"}, "unfold"),
        ({"metric": "outputs"}, r"looks at data: pass data=penjing\.Data"),
        ({"ranks": {"conv3": 4}}, "conv"),
        ({"ranks": {"conv2": 0}}, r"conv2 can't have the ranks 0, 0: the valid range is 1 to"),
        ({"ranks": {"conv2": (40, 4)}}, r"the valid range is 1 to 32, 1 to 32"),
        ({"ranks": 33, "method": "svd"}, r"the valid range is 1 to 27"),
        ({"method": "cp", "ranks": "energy:0.9"}, "speedup:2"),
        ({"method": "cp", "form": "unfold"}, "depthwise"),
        ({"include": ["head"], "method": "tucker2"}, "No layer can be factorised"),
        ({"ranks": 2.5}, "ranks"),
        ({"include": ["nowhere"]}, "nowhere"),
    ],
)
def test_bad_input_is_told_and_nothing_is_changed(graph, asked, said):
    with pytest.raises(PenjingError, match=said):
        pj.factorize(graph, **asked)


def test_a_layer_on_which_cp_diverges_stays_and_the_plan_says_so(graph, monkeypatch):
    module = __import__("penjing.factorization.decompositions._cp", fromlist=["_cp"])
    monkeypatch.setattr(module, "WORST", 0.0)
    with pytest.raises(PenjingError, match="No layer can be factorised"):
        pj.factorize(graph, method="cp", ranks={"conv2": 4})


def test_outputs_that_are_too_many_for_a_matrix_of_slopes_are_told(graph, data, monkeypatch):
    module = __import__("penjing.factorization.metrics._loss", fromlist=["_loss"])
    monkeypatch.setattr(module, "WHOLE", 30)
    with pytest.raises(PenjingError, match=r"conv1 gives 32 values.*metric='outputs'"):
        pj.factorize(graph, metric="loss", data=data)


@pytest.fixture(scope="module")
def wide():
    """Layers that read more values than the data have columns, or nearly so."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 12, 3, stride=3), nn.ReLU(), nn.Flatten()]
    return pj.capture(
        nn.Sequential(*layers, nn.Linear(108, 20), nn.ReLU(), nn.Linear(20, 5)), torch.randn(2, 3, 10, 10)
    )


@pytest.mark.parametrize("metric", ["outputs", "asymmetric", "loss"])
@pytest.mark.parametrize("method", ["auto", "svd", "tt"])
def test_layers_too_wide_for_a_gram_matrix_are_approximated_as_with_one(wide, data, metric, method, monkeypatch):
    asked = {"method": method, "ranks": "speedup:2", "round_to": 1, "metric": metric, "data": data}
    if method == "tt":
        asked["include"] = ["0", "2"]
    written_out = pj.factorize(wide, **asked)
    gram = __import__("penjing.evidence.gram", fromlist=["gram"])
    calls = []
    monkeypatch.setattr(gram, "WHOLE", 101)  # of "5" a sample of 94 columns would be kept; the data have 48
    monkeypatch.setattr(gram, "_centred", lambda found, own=gram._centred: calls.append(1) or own(found))
    monkeypatch.setattr(gram._Sample, "__init__", lambda self, most, own=gram._Sample.__init__: own(self, 10**6))
    thin = pj.factorize(wide, **asked)
    assert calls, "the conv of 144 values and the linear layer of 108 are beyond the limit"
    for before, after in zip(written_out.plan, thin.plan, strict=True):
        assert after.after == before.after and after.found["error"] == pytest.approx(before.found["error"], abs=2e-6)
    x = data.calibration[0][0]
    with torch.no_grad():
        assert torch.allclose(thin(x), written_out(x), atol=1e-3 * float(written_out(x).abs().max()))


def test_a_sample_of_columns_holds_each_with_the_same_chance_and_pairs_stay_together():
    gram = __import__("penjing.evidence.gram", fromlist=["gram"])
    columns = torch.arange(2000.0).expand(2, -1)
    one, other = gram._Sample(500), gram._Sample(500)
    for part in columns.split(130, 1):
        one.add(part)
        other.add(-part)
    found = one.found()["columns"][0]
    assert len(found.unique()) == 500 and torch.equal(found, -other.found()["columns"][0])
    counts = torch.histc(found, 4, 0, 2000)
    # hypergeometric: 125 of each quarter, standard deviation 8.4
    assert ((counts - 125).abs() < 4 * 8.4).all(), counts
    assert torch.equal(one.found()["sum"], columns.sum(1).double()) and int(one.found()["count"]) == 2000
