"""Changed copies of a graph that run from where they differ."""

import copy

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.evidence import prefix
from penjing.evidence.prefix import Prefix
from penjing.graph import branches, remove_branches
from penjing.training.batch_norms import normalising_by_batch


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


def network() -> pj.Graph:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), *(Block(8) for _ in range(4)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    return pj.capture(net, torch.randn(2, 3, 8, 8))


def outputs(graph, inputs):
    model = copy.deepcopy(graph)
    with torch.no_grad(), normalising_by_batch(model):
        return model.program(inputs)


@pytest.fixture
def started():
    graph = network()
    batches = [[torch.randn(4, 3, 8, 8)], [torch.randn(6, 3, 8, 8)]]
    model = copy.deepcopy(graph)
    with torch.no_grad(), normalising_by_batch(model):
        return graph, batches, Prefix(model, batches)


def ran(known, changed, batches):
    model = copy.deepcopy(changed)
    with torch.no_grad(), normalising_by_batch(model):
        start = known.start(model)
        return start, [known.run(model, start, place, inputs) for place, inputs in enumerate(batches)]


@pytest.mark.parametrize("gone", [(0,), (2,), (3,), (1, 3)])
def test_a_branch_that_goes_changes_what_lies_behind_it(started, gone):
    graph, batches, known = started
    changed = remove_branches(graph, [branches(graph)[place] for place in gone])
    start, found = ran(known, changed, batches)
    assert start.startswith("relu" if gone[0] else "conv")
    assert start != "" and all(
        torch.equal(mine[0], wanted[0])
        for mine, wanted in zip(found, (outputs(changed, inputs[0]) for inputs in batches), strict=True)
    )


def test_a_weight_that_changes_counts_and_one_that_stays_does_not(started):
    graph, batches, known = started
    changed = copy.deepcopy(graph)
    with torch.no_grad():
        changed.tensor("3.conv.weight").mul_(0.5)
    start, found = ran(known, changed, batches)
    assert torch.equal(found[1][0], outputs(changed, batches[1][0])[0])
    assert not torch.equal(found[1][0], outputs(graph, batches[1][0])[0])
    assert start == "relu_1", "two blocks lie before it"
    assert ran(known, copy.deepcopy(graph), batches)[0] == "linear"
    with torch.no_grad():
        changed.tensor("0.weight").mul_(0.5)
    start, found = ran(known, changed, batches)
    assert start == "" and torch.equal(found[0][0], outputs(changed, batches[0][0])[0])


def test_only_so_much_is_kept_as_is_allowed(monkeypatch):
    graph, batches = network(), [[torch.randn(4, 3, 8, 8)]]
    monkeypatch.setattr(prefix, "MOST_BYTES", 20_000)
    model = copy.deepcopy(graph)
    with torch.no_grad(), normalising_by_batch(model):
        known = Prefix(model, batches)
    kept = sum(v.nbytes for values in known._values for v in values.values() if isinstance(v, torch.Tensor))
    assert 0 < kept <= 20_000
    changed = remove_branches(graph, branches(graph)[3:])
    assert torch.equal(ran(known, changed, batches)[1][0][0], outputs(changed, batches[0][0])[0])
