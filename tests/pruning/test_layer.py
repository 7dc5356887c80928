import copy
import math

import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.errors import PenjingError
from penjing.graph import Place, capture, channels
from penjing.pruning import criteria, prune
from penjing.report import words

X = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
SHARED = ["uniform", "global", "lamp", "erk"]  # allocations of one share for all
BY_WEIGHT = [name for name, entry in criteria.items() if entry.level == "weight"]


def left(graph):
    return sorted({int(name.split(".")[1]) for name in graph.tensors() if name.startswith("blocks")})


@pytest.mark.parametrize("allocation", SHARED)
@pytest.mark.parametrize(("amount", "stay"), [(0, [0, 1, 2, 3]), (0.25, [0, 2, 3]), (0.5, [0, 2]), (0.8, [0])])
@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_the_branches_with_the_least_weights_go_whatever_their_size(criterion, amount, stay, allocation, residual):
    small = prune(residual, amount, criterion=criterion, granularity="layer", allocation=allocation)
    assert left(small) == stay and left(residual) == [0, 1, 2, 3]
    assert all(torch.equal(tensor, residual.tensor(name)) for name, tensor in small.tensors().items())


@pytest.mark.parametrize("criterion", BY_WEIGHT)
def test_every_criterion_of_weights_ranks_branches(criterion, residual, residual_data):
    small = prune(residual, 0.5, criterion=criterion, granularity="layer", data=residual_data, seed=1)
    assert len(left(small)) == 2
    assert len(small.program.graph.nodes) < len(residual.program.graph.nodes)
    assert small.cost().macs < residual.cost().macs
    assert [out.shape for out in small(X)] == [out.shape for out in residual(X)]


def test_the_plan_tells_which_branches_went(residual):
    plan = prune(residual, 0.5, granularity="layer").plan
    assert [(step.place, step.before, step.after) for step in plan] == [
        (Place("branch", f"blocks.{i}"), 1, 0) for i in (1, 3)
    ]
    assert {words(step.to_json()) for step in plan} == {"layer, l2, uniform"}


def test_the_last_branch_stays_and_the_plan_says_so(residual):
    small = prune(residual, 0.99, granularity="layer")
    assert left(small) == [0] and {words(step.to_json()) for step in small.plan} == {
        "layer, l2, uniform; at least 1 stays"
    }
    (step,) = prune(small, 0.9, granularity="layer").plan[len(small.plan) :]
    assert (step.place.path, step.before, step.after) == ("blocks.0", 1, 1)


def test_patterns_choose_among_the_branches_and_the_amount_is_their_share(residual):
    assert left(prune(residual, 0.5, granularity="layer", include=["blocks.0", "blocks.2"])) == [0, 1, 3]
    assert left(prune(residual, 0.5, granularity="layer", exclude=["blocks.1.0", "blocks.3"])) == [0, 1, 3]


def test_a_branch_around_others_goes_only_where_the_amount_covers_them_all():
    class Long(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(5, 6)
            self.inner = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
            for layer, scale in zip(self.inner, (0.1, 0.9, 0.9), strict=True):
                nn.init.constant_(layer.weight, scale)

        def forward(self, x):
            start = x = self.stem(x)
            for layer in self.inner:
                x = x + layer(x)
            return start + x.relu()

    graph = capture(Long(), X)
    assert sorted(prune(graph, 0.5, granularity="layer").tensors())[:2] == ["inner.2.bias", "inner.2.weight"]
    for amount in (0.25, 0.5, 0.75):
        plan = prune(graph, amount, granularity="layer").plan
        assert len(plan) == 4 * amount


def test_a_resnet_loses_half_of_its_blocks_with_identities_and_then_half_of_its_channels():
    graph = capture(zoo.resnet20(), torch.randn(2, 3, 32, 32))
    short = prune(graph, 0.5, granularity="layer")
    assert len(short.plan) == math.floor(0.5 * 7 + 0.5)
    narrow = prune(short, 0.5)
    assert narrow.cost().macs < 0.3 * short.cost().macs < 0.3 * graph.cost().macs
    assert narrow(torch.randn(3, 3, 32, 32)).shape == (3, 10) and len(channels(short).groups) == 8
    narrow.train()(torch.randn(3, 3, 32, 32)).sum().backward()


def test_a_model_without_branches_is_refused(chain, residual):
    with pytest.raises(PenjingError, match=r"No residual branch can be removed: .* granularity='filter' needs none"):
        prune(chain, 0.5, granularity="layer")
    with pytest.raises(PenjingError, match="No residual branch"):
        prune(residual, 0.5, granularity="layer", include=["head"])


@pytest.mark.parametrize("criterion", ["taylor", "bn_scale"])
def test_a_criterion_of_channels_says_that_it_can_t_score_branches(criterion, residual, data):
    with pytest.raises(
        PenjingError, match=f"'{criterion}' scores single channels.*'layer' works with .*l1, l2, .*random"
    ):
        prune(residual, 0.5, criterion=criterion, granularity="layer", data=data)


@pytest.mark.parametrize("option", [{"round_to": 8}, {"min_channels": 2}, {"units": "heads"}])
def test_options_about_channels_are_refused(option, residual):
    with pytest.raises(PenjingError, match="round_to, min_channels and units speak of channels"):
        prune(residual, 0.5, granularity="layer", **option)


def test_a_score_that_is_no_number_is_an_error_that_names_the_branch(residual):
    broken = copy.deepcopy(residual)
    with torch.no_grad():
        broken.tensor("blocks.2.0.weight")[0, 0] = math.nan
    with pytest.raises(PenjingError, match=r"'l2' gives scores that aren't numbers for blocks\.2"):
        prune(broken, 0.5, granularity="layer")
