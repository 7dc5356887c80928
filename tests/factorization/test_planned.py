"""Factorisation among the techniques of a planner and of a whole run."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.capabilities import find
from penjing.planning import Deployment, Problem, candidates, techniques
from penjing.planning.journal import by_level, key_of
from penjing.report import words
from penjing.techniques import Scope, level
from planning.blobs import points


@pytest.fixture(scope="module")
def data():
    return pj.Data(points(1, 192), points(1, 64), points(2, 64), pj.tasks.Classification(8), "points")


@pytest.fixture(scope="module")
def graph(data):
    torch.manual_seed(0)
    layers = [nn.Linear(12, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 8)]
    graph = pj.capture(nn.Sequential(*layers), torch.randn(2, 12))
    return pj.recover(graph, data, epochs=20, lr=0.05, precision="float32", channels_last=False, progress=False)


def test_it_proposes_one_level_for_each_speedup_without_layers_that_gain_nothing(graph, data):
    technique = techniques["factorize"].function(speedups=(2, 4))
    options = list(technique.propose(graph, data, find("onnxruntime"), Scope(exclude=("4",))))
    levels = {}
    for option in options:
        levels.setdefault(level(option, technique), []).append(option)
    assert [[one.place.path for one in some] for some in levels.values()] == [["0", "2"]] * 2
    ranks = [[one.after for one in some if one.place.path == "2"] for some in levels.values()]
    assert ranks == [[[32]], [[16]]], "multiples of 16, no more than the speed-up allows"
    draft = technique.draft(graph, options[:2], data)
    assert draft.cost().params == technique.apply(graph, options[:2], data).cost().params


def test_a_run_factorises_and_quantises_and_its_plan_alone_does_so_again(graph, data, tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "SECONDS", 0.2)
    monkeypatch.setattr("penjing.factorization.technique.SPEEDUPS", (2.0, 3.0))
    monkeypatch.setattr("penjing.targets.bench._this_process.FreshProcess.memory", lambda self, job: (2**26, 2**20))
    result = pj.compress(
        graph, data=data, techniques=("factorize", "quantize"), budget=pj.Budget(size="0.25x"), epochs=1, lr=0.02,
        precision="float32", channels_last=False, out=tmp_path / "out", progress=False, say=lambda line: None,
    )  # fmt: skip
    assert result.met and {step["technique"] for step in result.report["plan"]} == {"factorize", "quantize"}
    assert any("rank" in str(step["setting"]) for step in result.report["plan"])
    again = pj.apply(graph, tmp_path / "out" / "plan.json", data, stage="all")
    assert again.tensors().keys() == result.graph.tensors().keys()
    assert "factorize" in (tmp_path / "out" / "report.html").read_text()


@pytest.fixture
def measured(graph, data, tmp_path, monkeypatch):
    """Returns a function that measures a level on a pretended device, given the nodes (module, MACs, µs) of each file."""

    def run(before, after, **budget):
        def profile(file, threads, batch):
            nodes = before if file.path.stem == "original" else after
            return [SimpleNamespace(module=module, macs=macs, latency_us=time) for module, macs, time in nodes]

        def lower(model, target, path):
            path.write_text("lowered")
            return SimpleNamespace(path=path, size_bytes=4 * model.cost().params)

        def measure_together(files, **asked):
            return {name: SimpleNamespace(latency_ms=SimpleNamespace(undisturbed=1.0)) for name in files}

        for name, fake in {"lower": lower, "measure_together": measure_together, "profile": profile}.items():
            monkeypatch.setattr(candidates, name, fake)
        technique = techniques["factorize"].function(speedups=(2,))
        original = lower(graph, "onnxruntime", tmp_path / "original.onnx")
        limits = pj.Budget(**(budget or {"latency": "0.9x"}))
        problem = Problem(
            graph, data, original, limits, Deployment(), {"factorize": technique}, Scope(), tmp_path
        )  # fmt: skip
        (level,) = candidates.levels(problem, "structure", graph)
        return level, candidates.measure_level(problem, level)

    return run


BEFORE = [("0", 1, 9.0), ("2", 1, 9.0), ("4", 1, 9.0)]


def test_a_layer_whose_chain_was_measured_slower_stays_whole_and_the_plan_says_so(graph, data, measured):
    # the chain of "2" multiplies for less time than the layer, and moves values for longer than it saves
    level, (candidate,) = measured(BEFORE, [("0", 1, 3.0), ("0", 1, 1.0), ("2", 1, 4.0), ("2", 0, 9.0), ("4", 1, 1.0)])
    reasons = {option.place.path: option.found.get("reason") for option in candidate.plan}
    assert reasons == dict.fromkeys(option.place.path for option in level) | {"2": "slower chain"}
    assert [option.after for option in candidate.plan if option.place.path == "2"] == [None], "it has no new ranks"
    small = pj.apply(graph, candidate.plan, data)
    assert torch.equal(small.tensor("2.weight"), graph.tensor("2.weight")) and "0.0.weight" in small.tensors()
    assert candidate.params == small.cost().params < graph.cost().params
    told = {step.place.path: words(step.to_json()) for step in small.plan}
    assert told["2"] == "left alone: it was measured faster than the chain in its place"
    assert told["0"].startswith("svd, rank ")
    assert list(by_level([candidate])) == [key_of(level)], "a journal knows the level again"


def test_a_level_whose_chains_are_all_slower_gives_no_candidate(measured):
    assert measured(BEFORE, [(name, 1, 20.0) for name, _, _ in BEFORE])[1] == []


def test_where_only_the_size_is_limited_slower_chains_serve_too(measured):
    level, (candidate,) = measured(BEFORE, [(name, 1, 20.0) for name, _, _ in BEFORE], size="0.5x")
    assert tuple(candidate.plan) == level


def test_a_level_whose_chains_are_all_faster_is_measured_as_proposed(measured):
    level, (candidate,) = measured(BEFORE, [("2", 1, 8.0)])
    assert tuple(candidate.plan) == level
