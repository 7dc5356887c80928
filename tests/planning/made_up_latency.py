"""A network that learnt in seconds, and solvers that plan for it with made-up latencies."""

import importlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from residual import Block
from torch import nn

import penjing as pj
from penjing.data import Data
from penjing.evidence.memory import remembering
from penjing.planning import Deployment, Problem, find_solver
from penjing.planning.latency import kernels_of
from penjing.techniques import Scope, find

CHOICES = {"prune": {"criterion": "l2"}, "factorize": {"speedups": (2.0,), "metric": "weights"}}
MEASURING, SEARCH = "penjing.planning.candidates", "penjing.planning.search"


def images(seed: int, count: int = 128) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 4
    x = 0.5 * torch.randn(count, 3, 8, 8, generator=generator)
    for i, one in enumerate(label.tolist()):
        x[i, one % 3, 2 * one : 2 * one + 2] += 2
    return list(zip(x.split(32), label.split(32), strict=True))


@pytest.fixture(scope="session")
def learnt():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 32), Block(16, 32), Block(16, 16),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip
    graph = pj.capture(net, torch.randn(2, 3, 8, 8))
    data = remembering(Data(images(1), images(1)[:2], images(2), pj.tasks.Classification(4)))
    pj.recover(graph, data, epochs=6, lr=0.02, precision="float32", channels_last=False, progress=False)
    return graph, data


FACTOR = {"float32": 1.3, "int8": 6.0}  # by how much the table is wrong


def work(kernel) -> float:
    return kernel.macs / (3.0 if kernel.numbers == "int8" else 1.0) + 50.0 * kernel.elements**0.5


class MadeUpTable:
    """Knows every kernel, and is wrong by a factor, as tables are."""

    def __init__(self, path, deployment, *, record=None, say=print):
        self.asked = 0

    def measure(self, kernels, *, say=None, deadline=None):
        return ()

    def knows(self, kernel):
        return True

    def ms(self, kernel):
        return FACTOR[kernel.numbers] * work(kernel) / 1e6


@pytest.fixture(scope="session")
def solutions():
    """What `solved` of the fixture below found, for all tests that ask for the same."""
    return {}


@pytest.fixture
def made_up(monkeypatch, learnt, solutions, tmp_path):
    graph, data = learnt
    slower = {"factor": 1.0}

    def lowered(made, target, path):
        kernels = kernels_of(made, 1).values()
        size = 4 * made.cost().params
        return SimpleNamespace(time=sum(map(work, kernels)) / 1e6, size_bytes=size, params=made.cost().params)

    def measure_together(files, **options):
        full = files["original"].params
        return {
            name: SimpleNamespace(
                latency_ms=SimpleNamespace(undisturbed=file.time * (slower["factor"] if file.params < full else 1.0))
            )
            for name, file in files.items()
        }

    for name, fake in {"lower": lowered, "measure_together": measure_together, "profile": lambda *_: []}.items():
        monkeypatch.setattr(importlib.import_module(MEASURING), name, fake)
    monkeypatch.setattr(importlib.import_module(SEARCH), "LatencyTable", MadeUpTable)

    def problem(budget, techniques=("prune",), **more):
        chosen = {name: find(name, CHOICES.get(name)) for name in techniques}
        original, folder = lowered(graph, "onnxruntime", None), tmp_path / "candidates"
        return replace(Problem(graph, data, original, budget, Deployment(), chosen, Scope(), folder), **more)

    def solve(budget, techniques=("prune",), factor=1.0, solver="milp", **more):
        slower["factor"] = factor
        return find_solver(solver)(problem(budget, techniques, **more))

    def solved(budget, techniques=("prune",), solver="milp"):
        """Solves a problem once for all tests: for those that change nothing of the solver."""
        key = budget, techniques, solver
        if key not in solutions:
            solutions[key] = solve(budget, techniques, solver=solver)
        return solutions[key]

    return SimpleNamespace(graph=graph, data=data, solve=solve, solved=solved, problem=problem, lowered=lowered)
