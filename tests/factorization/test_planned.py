"""Factorisation among the techniques of a planner and of a whole run."""

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.capabilities import find
from penjing.planning import candidates, techniques
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
