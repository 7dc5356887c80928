"""Gates on units and branches, and what gradients say of them where samples aren't on the first axis."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.feature_maps import sites
from penjing.evidence.gates import gated_branches, gated_units
from penjing.graph import branches, capture, channels, remove_branches
from penjing.pruning import criteria, prune
from penjing.tasks import Classification


def evidence(graph, data=None, **options):
    found = channels(graph, **options)
    return Evidence(graph, found.groups, data, 16, 0, channels=found)


def labelled(inputs, classes, batches=2):
    pairs = [(inputs(), torch.randint(classes, (4,))) for _ in range(batches)]
    return Data(pairs, pairs, None, Classification(classes))


def samples(data):
    return ((x[None], y[None]) for batch in data.train for x, y in zip(*batch, strict=True))


# Samples on other axes than the first


class StepsFirst(nn.Module):
    """Steps come before samples, and are merged with them further on."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3)

    def forward(self, x, gates=(1.0, 1.0)):
        x = torch.relu(self.one(x.transpose(0, 1))) * gates[0]
        merged = torch.relu(self.two(x.flatten(0, 1))) * gates[1]
        return self.head(merged.unflatten(0, (x.shape[0], -1)).mean(0))


@pytest.fixture(scope="module")
def steps_first():
    torch.manual_seed(0)
    model = StepsFirst().eval()
    return model, capture(model, torch.randn(2, 4, 5)), labelled(lambda: torch.randn(4, 4, 5), 3)


def test_the_axis_of_the_samples_is_found_wherever_it_is(steps_first):
    _, graph, _ = steps_first
    known = evidence(graph)
    assert [[site.batch for site in sites(known, group)] for group in known.groups] == [[1], [None]]
    (site,) = sites(known, known.groups[0])
    value = torch.arange(4 * 3 * 6).reshape(4, 3, 6)
    assert torch.equal(site.maps(value)[5, 0, 2], value[:, 2, 5])  # unit, copy, sample


@pytest.mark.parametrize("criterion", ["fisher", "adversarial"])
def test_samples_are_told_apart_wherever_their_axis_is(criterion, steps_first, monkeypatch):
    model, graph, data = steps_first
    monkeypatch.setattr(sys.modules["penjing.pruning.criteria._adversarial"], "RADIUS", 0.0)
    expected = [torch.zeros(6), torch.zeros(7)]
    for x, y in samples(data):
        gates = [torch.ones(6, requires_grad=True), torch.ones(7, requires_grad=True)]
        slopes = torch.autograd.grad(F.cross_entropy(model(x, gates), y), gates)
        for total, slope in zip(expected, slopes, strict=True):
            total += (slope**2 / 2 if criterion == "fisher" else slope.abs()) / 8
    for found, wanted in zip(criteria[criterion].function(evidence(graph, data)), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-9)


def test_a_model_of_one_batch_size_whose_samples_share_an_axis_is_an_error():
    class Fixed(StepsFirst):
        def forward(self, x):
            return super().forward(x.reshape(4, 4, 5))

    graph = capture(Fixed().eval(), torch.randn(4, 4, 5))
    assert graph.batch == 4
    with pytest.raises(PenjingError, match="needs samples one by one, and the model takes 4 at a time only"):
        criteria["fisher"].function(evidence(graph, labelled(lambda: torch.randn(4, 4, 5), 3)))


def test_pytorchs_encoder_with_norms_last_is_scored():
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(5, 16), nn.Linear(16, 3)
            self.layer = nn.TransformerEncoderLayer(16, 4, 24)

        def forward(self, x):
            return self.head(self.layer(self.embed(x).transpose(0, 1)).mean(0))

    graph = capture(Encoder().eval(), torch.randn(2, 6, 5))
    data = labelled(lambda: torch.randn(4, 6, 5), 3)
    for criterion in ("fisher", "hrank", "attention"):
        small = prune(graph, 0.5, criterion=criterion, data=data)
        assert small(data.train[0][0]).isfinite().all()


# Gates as parameters


def test_a_closed_gate_is_as_a_unit_that_is_gone(chain):
    known = evidence(chain)
    gates = [torch.ones(group.units) for group in known.groups]
    gates[0][[1, 4]], gates[1][3] = 0, 0
    task = Classification(3)
    x, y = torch.randn(5, 3, 8, 8), torch.randint(3, (5,))
    given = Evidence(chain, known.groups, Data([(x, y)], None, None, task), 1, 0, channels=known.channels)
    (loss,) = given.changed(gated_units(known, gates), 1)
    kept = [gate.nonzero().flatten() for gate in gates]
    by_hand = {name: chain.tensor(name)[kept[i]] for i in range(2) for name in (f"bn{i + 1}.weight", f"bn{i + 1}.bias")}
    one, two, head = (chain.tensor(f"{name}.weight") for name in ("conv1", "conv2", "head"))

    def normed(x, i):
        mean, var = (chain.tensor(f"bn{i + 1}.running_{what}")[kept[i]] for what in ("mean", "var"))
        return torch.relu(F.batch_norm(x, mean, var, by_hand[f"bn{i + 1}.weight"], by_hand[f"bn{i + 1}.bias"]))

    hidden = normed(F.conv2d(x, one[kept[0]], padding=1), 0)
    hidden = normed(F.conv2d(hidden, two[kept[1]][:, kept[0]], padding=1), 1).mean((2, 3))
    torch.testing.assert_close(loss(), task.loss(F.linear(hidden, head[:, kept[1]], chain.tensor("head.bias")), y))


def test_a_closed_gate_on_a_branch_is_as_a_branch_that_is_gone(residual, residual_data):
    found = branches(residual)
    given = Evidence(residual, (), residual_data, 1, 0, found)
    (loss,) = given.changed(gated_branches(given, torch.tensor([1.0, 0.0, 1.0, 1.0])), 1)
    x, y = residual_data.train[0]
    torch.testing.assert_close(loss(), residual_data.task.loss(remove_branches(residual, [found[1]])(x), y))
