"""The increase of the loss by options, against losses that PyTorch computes, and the names of places once branches are gone."""

import math

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.capabilities import find as capabilities
from penjing.data import Data
from penjing.evidence.memory import remembering
from penjing.graph import Option, Place
from penjing.planning.damage import LossIncrease
from penjing.planning.search import interpolated
from penjing.techniques import Scope, find


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def batches(count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 3, 8, 8, generator=generator), torch.arange(16) % 4) for _ in range(count)]


def halved(keep: int = 8) -> Option:
    setting = {
        "granularity": "filter", "criterion": "l2", "allocation": "plan", "keep": keep, "include": [], "exclude": [],
        "batches": 2, "seed": 0, "units": "auto",
    }  # fmt: skip
    return Option(Place("group", "0"), "prune", setting, 16, keep)


def test_it_is_the_tasks_loss_with_norms_that_normalise_by_the_batch():
    model, data = net(), Data(batches(), batches(), None, pj.tasks.Classification(4))
    graph = pj.capture(model.eval(), torch.randn(2, 3, 8, 8))
    found = LossIncrease(graph, data)
    model[1].train()
    with torch.no_grad():
        expected = sum(float(nn.functional.cross_entropy(model(x), y)) for x, y in batches()) / 3
    assert found.original == pytest.approx(expected, rel=1e-5)
    technique = find("prune", {"criterion": "l2"})
    small = technique.apply(graph, [halved()], data)
    written = net()
    model = small.write_into(written) or written
    model.eval()[1].train()
    with torch.no_grad():
        after = sum(float(nn.functional.cross_entropy(model(x), y)) for x, y in batches()) / 3
    assert found.of(technique, [halved()]) == pytest.approx(max(1e-9, after - expected), rel=1e-4, abs=1e-6)


def test_without_labels_it_is_the_share_of_the_outputs_power_that_is_wrong():
    model = net().eval()
    unlabelled = [(x,) for x, _ in batches()]
    data = Data(None, unlabelled, None, pj.tasks.Unlabelled("values"))
    graph = pj.capture(model, torch.randn(2, 3, 8, 8))
    found = LossIncrease(graph, data)
    nothing = pj.capture(net().eval(), torch.randn(2, 3, 8, 8))
    with torch.no_grad():
        for name in ("7.weight", "7.bias"):
            nothing.tensor(name).zero_()
    assert found.loss(nothing) == pytest.approx(1.0, rel=1e-5)


def test_an_option_is_measured_once_for_all_calls(monkeypatch, tmp_path):
    data = remembering(Data(batches(), batches(), None, pj.tasks.Classification(4)), tmp_path)
    graph, technique = pj.capture(net().eval(), torch.randn(2, 3, 8, 8)), find("prune", {"criterion": "l2"})
    first = LossIncrease(graph, data).of(technique, [halved()])
    again = LossIncrease(graph, data)
    monkeypatch.setattr(LossIncrease, "loss", lambda *_: pytest.fail("it was measured before"))
    assert again.of(technique, [halved()]) == first
    with pytest.raises(pytest.fail.Exception):
        again.of(technique, [halved(4)])


def test_no_data_and_an_original_without_a_finite_loss_are_refused():
    graph = pj.capture(net().eval(), torch.randn(2, 3, 8, 8))
    with pytest.raises(pj.PenjingError, match="both are None"):
        LossIncrease(graph, Data(None, None, batches(), pj.tasks.Classification(4)))
    with torch.no_grad():
        graph.tensor("7.bias").fill_(float("nan"))
    with pytest.raises(pj.PenjingError, match="no damage can be measured"):
        LossIncrease(graph, Data(batches(), None, None, pj.tasks.Classification(4)))


class Stream(nn.Module):
    """The first maker of the stream's channels sits in a branch that can go."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 24), nn.Linear(24, 24)
        self.scale = nn.Parameter(torch.ones(24))
        self.head = nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.scale
        x = x + torch.relu(self.first(x))
        return self.head(x + torch.relu(self.second(x)))


def test_widths_are_named_as_they_are_once_branches_have_gone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 24), Stream()).eval()
    graph = pj.capture(model, torch.randn(2, 5))
    technique = find("prune", {"criterion": "l2"})
    options = list(technique.choices(graph, None, capabilities("onnxruntime"), Scope()))
    branches = [one for one in options if one.place.kind == "branch"]
    widths = [one for one in options if one.place.kind == "group"]
    assert len(branches) == 2 and widths
    for gone in branches:
        settled = technique.settled(graph, [widths[-1], gone])
        assert [one.place.kind for one in settled] == ["branch", "group"]
        small = technique.apply(graph, settled, None)
        assert small.cost().params < technique.apply(graph, [gone], None).cost().params
    again = pj.apply(graph, pj.Plan(tuple(technique.settled(graph, [widths[0], branches[0]]))))
    assert (
        again.cost().macs
        == technique.apply(graph, technique.settled(graph, [widths[0], branches[0]]), None).cost().macs
    )


def test_between_measured_widths_and_above_the_mildest_a_power_law_tells_the_damage():
    options = [Option(Place("group", "g"), "prune", {"keep": keep}, 64, keep) for keep in (56, 48, 32, 16)]
    shares = [1 - keep / 64 for keep in (56, 48, 32, 16)]
    known = {at: 0.3 * shares[at] ** 1.7 for at in (1, 3)}
    assert [interpolated(at, options, known) for at in range(4)] == pytest.approx([0.3 * one**1.7 for one in shares])
    assert interpolated(2, options, {0: 0.1, 1: 0.2}) == math.inf and interpolated(1, options, {0: 0.1}) == math.inf


def test_at_chance_level_every_sample_of_a_batch_gets_the_same_answer(learnt):
    graph, data = learnt
    increase = LossIncrease(graph, data)
    assert increase.original + increase.chance == pytest.approx(math.log(4), abs=0.35)  # of four classes, as many each
    assert increase.tells(0.1 * increase.chance) and not increase.tells(0.9 * increase.chance)
