"""Exits of a network: where they stand, how it is cut there, which samples leave, what is delivered."""

import importlib.util
import json
import math
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from penjing.adaptive import Exits
from penjing.adaptive._heads import stage_ends
from penjing.adaptive.exits import confidence, left
from penjing.adaptive.staged import sure
from penjing.adaptive.thresholds import answers, metric_at
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.quantization import quantize
from penjing.targets import integer_macs, session
from penjing.tasks import Unlabelled, evaluate
from penjing.verbs import early_exit
from penjing.zoo import resnet20


@pytest.fixture(scope="module")
def rounded(trained, digits):
    return quantize(trained, digits)


@pytest.fixture(scope="module", params=["float", "int8"])
def network(request, trained, rounded):
    return trained if request.param == "float" else rounded


def learned(graph, digits, **more):
    torch.manual_seed(0)
    return early_exit(graph, data=digits, epochs=6, progress=False, **{"at": ["block"], **more})


@pytest.fixture(scope="module")
def exits(network, digits):
    return learned(network, digits, drop=0.05)


@pytest.fixture
def x(digits):
    return next(iter(digits.validation))[0]


def outputs(model, *x):
    with torch.no_grad():
        return model(*x)


# Cutting


def test_the_network_itself_answers_as_before(exits, network, x):
    assert torch.equal(outputs(exits.whole(), x), outputs(network, x))
    assert torch.equal(outputs(exits.graph, x)[-1], outputs(network, x))


def test_stages_behind_one_another_are_the_network_to_the_bit(exits, x):
    first, second = exits.stages()
    logits, *cut = outputs(first, x)
    assert torch.equal(logits, outputs(exits.graph, x)[0])
    assert torch.equal(outputs(second, *cut), outputs(exits.graph, x)[1])
    for size in (1, 3):  # the batch is free
        assert len(outputs(second, *(value[:size] for value in cut))) == size


def test_where_a_block_has_a_shortcut_both_values_cross_the_cut(trained, x):
    inside = Exits.of(trained, "block.2")
    first, second = inside.stages()
    _, *cut = outputs(first, x)
    assert len(cut) == len(second.inputs) == 2
    assert torch.equal(outputs(second, *cut), outputs(trained, x))


def test_stages_of_a_quantised_network_compute_in_integers(rounded, tmp_path):
    made = Exits.of(rounded, ["stem", "block"])
    for stage, file in zip(made.stages(), made.lower("onnxruntime", tmp_path), strict=True):
        products = sum(row.macs for row in stage.cost().rows if not row.module.startswith("exit"))
        assert integer_macs(file, products) == pytest.approx(1, abs=0.02)


def test_files_of_stages_answer_as_the_stages_do(exits, x, tmp_path):
    values = (x,)
    for stage, file in zip(exits.stages(), exits.lower("onnxruntime", tmp_path), strict=True):
        made, expected = session(file)(*values), outputs(stage, *values)
        made, expected = ((one,) if isinstance(one, torch.Tensor) else one for one in (made, expected))
        for one, other in zip(made, expected, strict=True):
            off = (one - other).abs() > 1e-4 + 0.02 * other.abs().max()  # a value between two steps may round otherwise
            assert off.float().mean() < 0.01
        values = tuple(expected[1:])


# Where


def test_auto_takes_the_ends_of_stages_but_the_last():
    graph = capture(resnet20().eval(), torch.randn(2, 3, 32, 32))
    sizes = {
        node.name: tuple(node.meta["val"].shape[1:])
        for node in graph.program.graph.nodes
        if node.name in stage_ends(graph)
    }
    assert list(sizes.values()) == [(16, 32, 32), (32, 16, 16)]
    made = Exits.of(graph, "auto")
    assert [stage.cost().macs > 0 for stage in made.stages()] == [True, True, True]


def test_a_head_pools_mean_and_maximum_over_cells_and_is_linear(trained, x):
    made = Exits.of(trained, "block")
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name in made.heads:
            made.graph.tensor(name).normal_(generator=generator)
        logits, values = made.graph.with_outputs(made.at)(x)
    value = values[made.at[0]]  # (N, 8, 4, 4): as many cells as positions
    features = torch.cat([F.adaptive_avg_pool2d(value, 4), F.adaptive_max_pool2d(value, 4)], 1).flatten(1)
    torch.testing.assert_close(logits[0], F.linear(features, *(made.graph.tensor(name) for name in made.heads)))


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("head", "stands behind the last layer"),
        ("last", "has that layer alone behind it"),
        ("blok", "Unknown module or node 'blok'. Did you mean 'block"),
        (["block", "block.4"], "'block' and 'block.4' end at the same place"),
        (["stem", "stem"], "'stem' and 'stem' end at the same place"),
    ],
)
def test_places_that_make_no_sense_are_refused(at, says, trained):
    with pytest.raises(PenjingError, match=says):
        Exits.of(trained, at)


def test_networks_that_give_no_logits_are_refused(trained):
    for model, shape, says in (
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3)),
            (2, 3, 9, 9),
            "needs one output, logits",
        ),
        (
            nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 1)),
            (2, 3),
            "a single output per sample",
        ),
        (nn.Linear(3, 4), (2, 3), "No stages were found"),
    ):
        with pytest.raises(PenjingError, match=says):
            Exits.of(capture(model.eval(), torch.randn(shape)), "auto" if "stages" in says else "0")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_16_bits_is_refused_with_advice(dtype):
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)), nn.Flatten(), nn.Linear(48, 4))
    graph = capture(model.eval().to(dtype), torch.randn(2, 3, 4, 4, dtype=dtype))
    with pytest.raises(PenjingError, match=r"computes in 16 bits.*pj\.capture\(model\.float\(\)"):
        Exits.of(graph, "0")


def test_heads_have_the_networks_numbers():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)), nn.Flatten(), nn.Linear(48, 4))
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert [one.dtype for one in outputs(Exits.of(capture(model.eval().double(), x), "0").graph, x)] == [x.dtype] * 2


# Leaving


def test_a_sample_leaves_at_the_first_exit_that_is_sure_of_it():
    sure, unsure = [9.0, 0.0, 0.0], [0.2, 0.1, 0.0]
    logits = torch.tensor([[sure, unsure, unsure], [unsure, sure, unsure], [unsure, unsure, unsure]])
    answered, place = left(logits, 0.9)
    assert place.tolist() == [0, 1, 2]
    assert torch.equal(answered, torch.stack([logits[0, 0], logits[1, 1], logits[2, 2]]))
    assert left(logits, None)[1].tolist() == [2, 2, 2]
    assert left(logits, 0.1)[1].tolist() == [0, 0, 0]


def test_torch_numpy_and_the_script_stop_at_the_same_exit_even_at_the_threshold(exits, digits, tmp_path):
    exits.lower("onnxruntime", tmp_path, digits)
    spec = importlib.util.spec_from_file_location("staged_script", tmp_path / "run.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    logits = 3 * torch.randn(3, 400, 10, generator=torch.Generator().manual_seed(5))
    logits[0, 0, 0] = math.nan

    class Stage:
        def __init__(self, place):
            self.session, self.place = self, place

        def get_inputs(self):
            return [SimpleNamespace(name="rows")]

        def run(self, _, named):
            found = logits[self.place].numpy()[named["rows"]]
            return [found, named["rows"]] if self.place < 2 else [found]

    runner = script.Session.__new__(script.Session)
    runner.stages = [Stage(place) for place in range(3)]
    ties = confidence(logits[:2]).flatten()[1::20].tolist()
    for threshold in (*ties, 0.9, 0.5):
        answered, place = left(logits, threshold)
        alone = [
            next((k for k in range(2) if sure(logits[k, row : row + 1].numpy()) >= threshold), 2) for row in range(400)
        ]
        assert place.tolist() == alone
        runner.threshold = threshold
        assert np.array_equal(runner.run(np.arange(400)), answered.numpy(), equal_nan=True)


def test_a_batch_gets_the_answers_of_the_exits_by_which_its_samples_leave(exits, x):
    answered, place = exits(x)
    confidence = outputs(exits.graph, x)[0].double().softmax(1).amax(1).float()
    assert torch.equal(place == 0, confidence >= exits.threshold) and (place == 0).float().mean() > 0
    for sample in range(5):
        torch.testing.assert_close(answered[sample], outputs(exits.graph, x)[place[sample]][sample])


def test_only_heads_are_trained_and_they_come_near_the_networks_answers(exits, network, digits):
    before = network.tensors()
    assert all(torch.equal(one, before[name]) for name, one in exits.graph.tensors().items() if name in before)
    assert set(exits.heads) == set(exits.graph.tensors()) - set(before) and len(exits.heads) == 2
    first = metric_at(answers(exits.graph, digits), digits, 1e-9)
    assert first[1] == (1, 0) and first[0] > 0.7


def test_the_threshold_is_the_cheapest_that_keeps_the_metric(exits, network, digits):
    whole = evaluate(network, digits.validation, digits.task)
    assert exits.metric == pytest.approx(whole)
    kept = [point for point in exits.curve if point.metric >= whole - 0.05]
    assert exits.threshold == min(kept, key=lambda point: point.latency_ms).threshold
    for point in exits.curve[:: len(exits.curve) // 5]:
        metric, shares = metric_at(answers(exits.graph, digits), digits, point.threshold)
        assert (metric, shares) == (point.metric, point.shares) and math.isclose(sum(shares), 1, abs_tol=1e-6)
    early = [point.shares[0] for point in exits.curve]
    assert early == sorted(early, reverse=True)  # the higher the threshold, the fewer leave early


def test_a_network_that_learns_along_changes_and_is_judged_by_what_it_was(trained, digits, rounded):
    made = learned(trained, digits, train_network=True, lr=0.05, training={"precision": "float32"}, drop=0.05)
    assert any(not torch.equal(made.graph.tensor(name), one) for name, one in trained.tensors().items())
    assert made.metric == pytest.approx(evaluate(made.whole(), digits.validation, digits.task))
    before = evaluate(trained, digits.validation, digits.task)
    kept = [point for point in made.curve if point.metric >= before - 0.05]
    assert made.threshold == min(kept, key=lambda point: point.latency_ms).threshold
    with pytest.raises(PenjingError, match="The graph is quantised: train the float network"):
        learned(rounded, digits, train_network=True)


def test_equal_seeds_give_equal_exits(trained, digits):
    first, again = (learned(trained, digits, seed=3) for _ in range(2))
    assert all(torch.equal(first.graph.tensor(name), again.graph.tensor(name)) for name in first.heads)


def test_a_threshold_that_no_sample_reaches_is_told_with_the_curve(trained, digits):
    with pytest.raises(PenjingError, match=r"at no exit .* so sure of any .* Tried: 0\.\d+: metric .* samples by exit"):
        early_exit(trained, data=digits, at=["block"], epochs=0, threshold=0.5)  # untrained heads are never sure
    said = []
    made = early_exit(trained, data=digits, at=["block"], epochs=0, drop=0.0, log=said.append)
    assert made.threshold is None and any("No sample leaves early: no threshold keeps" in line for line in said)
    assert "no sample leaves early" in str(made)


def test_a_threshold_that_was_given_is_taken(trained, digits):
    made = learned(trained, digits, threshold=0.6)
    assert made.threshold == 0.6 and any(point.threshold == 0.6 for point in made.curve)


def test_data_that_cant_judge_is_refused(trained, digits):
    with pytest.raises(PenjingError, match="no labels"):
        early_exit(trained, data=replace(digits, task=Unlabelled()))
    with pytest.raises(PenjingError, match="validation, which is None"):
        early_exit(trained, data=replace(digits, validation=None))
    with pytest.raises(PenjingError, match="drop=None leaves the metric without a bound"):
        early_exit(trained, data=digits, drop=None)
    with pytest.raises(PenjingError, match="Unknown argument in training="):
        early_exit(trained, data=digits, training={"leraning_rate": 1})


# Delivered


def test_a_folder_holds_the_network_and_its_exits(exits, x, tmp_path):
    exits.save(tmp_path)
    again = Exits.load(tmp_path)
    assert str(again) == str(exits) and again.curve == exits.curve
    assert all(torch.equal(one, other) for one, other in zip(again(x), exits(x), strict=True))
    (tmp_path / "exits.json").write_text(
        json.dumps({**json.loads((tmp_path / "exits.json").read_text()), "at": ["no"]})
    )
    with pytest.raises(PenjingError, match="its exits differ"):
        Exits.load(tmp_path)
    (tmp_path / "exits.json").write_text("{}")
    with pytest.raises(PenjingError, match=r"exits\.json can't be used"):
        Exits.load(tmp_path)
    (tmp_path / "exits.penjing").unlink()
    with pytest.raises(PenjingError, match=r"there is no file exits\.penjing"):
        Exits.load(tmp_path)


def test_exits_that_nobody_judged_come_back_from_their_folder(trained, tmp_path):
    made = Exits.of(trained, "block")
    made.save(tmp_path)
    again = Exits.load(tmp_path)
    assert again.metric is made.metric is None and again.at == made.at
    with pytest.raises(PenjingError, match="isn't a finite number"):
        replace(made, metric=math.nan).save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_script_beside_the_stages_answers_as_the_network_with_exits(exits, digits, x, tmp_path):
    exits.lower("onnxruntime", tmp_path, digits)
    labels = next(iter(digits.validation))[1]
    np.savez(tmp_path / "ready.npz", x=x.numpy(), y=labels.numpy())
    printed = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "ready.npz")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    right = float((exits(x)[0].argmax(1) == labels).float().mean())
    assert abs(float(printed.split()[1]) - right) <= 2.01 / len(labels)


def test_a_target_without_such_a_script_is_refused(exits, digits, tmp_path):
    with pytest.raises(PenjingError, match=r"There is no run\.py of stages for 'torch'"):
        exits.lower("torch", tmp_path, digits)


def test_both_ways_are_measured_on_the_same_samples(exits, digits):
    found = exits.measure(digits, samples=40)
    assert found.samples == 40 and math.isclose(sum(found.shares), 1) and found.mean_ms > 0 and found.whole_p90_ms > 0
    images, labels = (torch.cat(parts) for parts in zip(*digits.validation, strict=True))
    rows = np.linspace(0, len(images) - 1, 40).round().astype(int)
    some = replace(digits, validation=[(images[rows], labels[rows])])
    metric, shares = metric_at(answers(exits.graph, some), some, exits.threshold)
    assert abs(found.metric - metric) <= 0.051 and abs(found.shares[0] - shares[0]) <= 0.051
    assert "instead of" in str(found)
