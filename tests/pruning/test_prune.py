import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import Place, capture
from penjing.pruning import allocations, prune
from penjing.pruning.allocations._registry import Scored

GROUPS = st.lists(st.lists(st.integers(0, 3).map(float), min_size=1, max_size=40), min_size=1, max_size=5)
AMOUNTS = st.floats(0, 1, exclude_max=True)


def allocate(name, groups, amount, rounding=None):
    places = [Scored(str(position), (len(group), 2)) for position, group in enumerate(groups)]
    wanted = dict.fromkeys((place.name for place in places), amount) if name == "plan" else amount
    scores = [torch.tensor(group) for group in groups]
    needed = {"damage": lambda counts: [list(map(float, some)) for some in counts]} if allocations[name].needs else {}
    return allocations[name].function(scores, wanted, rounding, places, **needed)


# Allocations


@given(GROUPS, AMOUNTS, st.none() | st.integers(1, 20))
@pytest.mark.parametrize("name", allocations)
def test_every_allocation_keeps_at_least_one_unit_and_at_most_all(name, groups, amount, rounding):
    kept = allocate(name, groups, amount, rounding)
    assert all(1 <= keep <= len(group) for keep, group in zip(kept, groups, strict=True))


@given(GROUPS, AMOUNTS, st.integers(1, 20))
@pytest.mark.parametrize("name", allocations)
def test_every_allocation_keeps_multiples_or_the_whole_group(name, groups, amount, step):
    for keep, group in zip(allocate(name, groups, amount, step), groups, strict=True):
        assert keep % step == 0 or keep == len(group)


@pytest.mark.parametrize("name", allocations)
def test_every_allocation_keeps_all_where_nothing_is_asked_for(name):
    assert allocate(name, [[1.0] * 7, [2.0] * 3], 0.0) == [7, 3]


@given(GROUPS, AMOUNTS)
def test_uniform_removes_the_share_of_each_group_exactly_even_where_scores_tie(groups, amount):
    for keep, group in zip(allocate("uniform", groups, amount), groups, strict=True):
        assert keep == 1 or abs(len(group) - keep - amount * len(group)) <= 0.5


@given(GROUPS, AMOUNTS)
def test_global_removes_the_share_of_all_exactly_even_where_scores_tie(groups, amount):
    total = sum(map(len, groups))
    removed = total - sum(allocate("global", groups, amount))
    assert removed == min(math.floor(amount * total + 0.5), total - len(groups))


def test_global_takes_equal_scores_from_all_groups_alike():
    assert allocate("global", [[1.0] * 8, [1.0] * 4], 0.5) == [4, 2]


def test_global_compares_groups_by_scores_relative_to_their_own_scale():
    small = [1.0, 1.0, 1.0, 1.0]
    mixed = [1000.0, 1000.0, 1.0, 1.0]
    assert allocate("global", [small, mixed], 0.25) == [4, 2]


def test_rounding_may_be_a_function():
    assert allocate("uniform", [[0.0] * 64, [0.0] * 10], 0.5, lambda wanted: wanted // 10 * 10) == [30, 1]


# The verb


@pytest.mark.parametrize("amount", [0.0, 0.25, 0.5, 0.9])
def test_the_weakest_units_go_and_the_rest_stays_as_it_was(chain, amount):
    weight = chain.tensor("conv1.weight").detach().numpy()
    removed = math.floor(amount * 6 + 0.5)
    stay = np.sort(np.argsort(np.abs(weight).sum((1, 2, 3)))[removed:])
    small = prune(chain, amount, criterion="l1")
    np.testing.assert_array_equal(small.tensor("conv1.weight").detach().numpy(), weight[stay])
    for name in ("bn1.weight", "bn1.bias", "bn1.running_mean"):
        np.testing.assert_array_equal(small.tensor(name).detach(), chain.tensor(name).detach()[stay])
    assert small.tensor("conv2.weight").shape[:2] == (8 - math.floor(amount * 8 + 0.5), len(stay))


def test_ties_are_broken_to_the_exact_amount(chain):
    flat = copy.deepcopy(chain)
    with torch.no_grad():
        flat.tensor("conv1.weight").fill_(1.0)
        flat.tensor("conv2.weight").fill_(1.0)
    for allocation in ("uniform", "global", "lamp", "erk"):
        small = prune(flat, 0.5, criterion="l1", allocation=allocation)
        assert small.tensor("conv1.weight").shape[0] + small.tensor("conv2.weight").shape[0] == 7


def test_the_graph_given_stays_as_it_was_and_the_small_one_runs_trains_and_tells_its_plan(chain):
    before = {name: tensor.clone() for name, tensor in chain.tensors().items()}
    small = prune(chain, 0.5)
    assert not chain.plan and all(torch.equal(t, before[n]) for n, t in chain.tensors().items())
    assert [(step.place, step.before, step.after) for step in small.plan] == [
        (Place("group", "conv1"), 6, 3), (Place("group", "conv2"), 8, 4),
    ]  # fmt: skip
    assert small.plan[0].setting == {
        "granularity": "filter", "criterion": "l2", "allocation": "uniform", "keep": 3, "include": [], "exclude": [],
        "batches": 16, "seed": 0, "units": "auto",
    }  # fmt: skip
    small.train()
    small(torch.randn(5, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_round_to_keeps_multiples(chain):
    small = prune(chain, 0.3, round_to=4)
    assert [small.tensor(f"conv{i}.weight").shape[0] for i in (1, 2)] == [4, 8]


@pytest.mark.parametrize(("patterns", "widths"), [({"exclude": ["conv1"]}, [6, 4]), ({"include": ["conv1"]}, [3, 8])])
def test_patterns_of_module_paths_choose_what_is_pruned(chain, patterns, widths):
    small = prune(chain, 0.5, **patterns)
    assert [small.tensor(f"conv{i}.weight").shape[0] for i in (1, 2)] == widths
    with pytest.raises(PenjingError, match="conf1"):
        prune(chain, 0.5, exclude=["conf1"])


def test_all_makers_of_a_residual_stream_lose_the_same_channels(stream):
    small = prune(stream, 0.5)
    assert small.tensor("first.weight").shape == (3, 3, 3, 3)
    assert small.tensor("second.weight").shape == (3, 3, 3, 3)
    assert small.tensor("head.weight").shape == (3, 3)


@pytest.mark.parametrize("amount", [-0.1, 1, 1.5, math.nan])
def test_an_amount_out_of_range_is_refused(chain, amount):
    with pytest.raises(PenjingError, match=r"amount is the share of units to remove, 0 ≤ amount < 1, not"):
        prune(chain, amount)


@pytest.mark.parametrize("step", [0, -8])
def test_a_step_of_no_units_is_refused(chain, step):
    with pytest.raises(PenjingError, match=r"round_to=.*: it must be a whole number from 1"):
        prune(chain, 0.5, round_to=step)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"criterion": "tailor"}, r"Unknown criterion 'tailor'\. Did you mean 'taylor'"),
        ({"allocation": "globle"}, r"Unknown allocation 'globle'\. Did you mean 'global'"),
        ({"granularity": "fliter"}, r"Unknown granularity 'fliter'\. Did you mean 'filter'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(chain, option, says):
    with pytest.raises(PenjingError, match=says):
        prune(chain, 0.5, **option)


def test_a_model_of_which_nothing_can_go_names_the_ops_that_pin_it():
    graph = capture(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8))
    with pytest.raises(
        PenjingError, match=r"No channel of this model can be removed: all are pinned, by .*(input|output)"
    ):
        prune(graph, 0.5)


def test_a_model_of_which_all_is_excluded_names_the_pattern(chain):
    with pytest.raises(PenjingError, match=r"all are pinned, by .*conv\*"):
        prune(chain, 0.5, exclude=["conv*"])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_no_generator_takes_are_refused(seed, chain):
    with pytest.raises(PenjingError, match=r"seed=.*: it must be a whole number from 0 to 4,294,967,295"):
        prune(chain, 0.5, criterion="random", seed=seed)
