"""Allocations against their papers' formulas, written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from penjing.errors import PenjingError
from penjing.prune import allocations, prune
from penjing.prune.allocations._registry import Place

SHAPES = st.lists(st.lists(st.integers(1, 12), min_size=2, max_size=4), min_size=1, max_size=5)
AMOUNTS = st.floats(0, 1, exclude_max=True)


# ERK


def erk(shapes, amount):
    places = [Place(str(i), tuple(shape)) for i, shape in enumerate(shapes)]
    scores = [torch.arange(math.prod(shape)).float() for shape in shapes]
    return allocations["erk"].function(scores, amount, None, places)


@given(SHAPES, AMOUNTS)
def test_erk_keeps_as_many_as_asked_for_in_all(shapes, amount):
    total = sum(map(math.prod, shapes))
    kept = erk(shapes, amount)
    assert sum(kept) == max(total - math.floor(amount * total + 0.5), len(shapes))
    assert all(1 <= one <= math.prod(shape) for one, shape in zip(kept, shapes, strict=True))


@given(SHAPES, st.floats(0.05, 0.9))
def test_erk_gives_densities_in_proportion_to_sums_over_products_of_shapes(shapes, amount):
    sizes = np.array([math.prod(shape) for shape in shapes], float)
    raw = np.array([sum(shape) for shape in shapes]) / sizes
    wanted = sizes.sum() - math.floor(amount * sizes.sum() + 0.5)
    scale = brentq(lambda one: (np.minimum(1, one * raw) * sizes).sum() - wanted, 0, 1 / raw.min() + 1e-9)
    kept = np.array(erk(shapes, amount))
    slack = 1 + np.maximum(1 - np.minimum(1, scale * raw) * sizes, 0).sum()  # each keeps one at least
    assert (np.abs(kept - np.minimum(1, scale * raw) * sizes) <= slack + 1e-6).all()


def test_erk_leaves_small_layers_whole(chain):
    small = prune(chain, 0.5, granularity="element", allocation="erk")
    weights = {name: chain.tensor(name).numel() for name in ("conv1.weight", "conv2.weight", "head.weight")}
    assert "head.weight" not in small.masks  # of 24 weights
    assert sum(int((~mask).sum()) for mask in small.masks.values()) == sum(weights.values()) // 2


# LAMP


def lamp_scores(weight):
    """The paper's definition, one weight at a time."""
    squares = weight.detach().double().flatten().numpy() ** 2
    return np.array([one / squares[squares >= one].sum() for one in squares])


@pytest.mark.parametrize("criterion", ["l1", "l2"])
@pytest.mark.parametrize("amount", [0.2, 0.5, 0.9])
def test_lamp_removes_the_lowest_of_the_papers_scores(amount, criterion, chain):
    small = prune(chain, amount, criterion=criterion, granularity="element", allocation="lamp")
    names = ("conv1.weight", "conv2.weight", "head.weight")
    scores = np.concatenate([lamp_scores(chain.tensor(name)) for name in names])
    kept = np.concatenate([small.masks[name].flatten().numpy() for name in names])
    assert (~kept).sum() == math.floor(amount * len(scores) + 0.5)
    assert scores[kept].min() >= scores[~kept].max()


def test_lamp_refuses_scores_below_zero():
    with pytest.raises(PenjingError, match=r"'lamp' needs scores that aren't negative, and some of conv are"):
        allocations["lamp"].function([torch.tensor([1.0, -1.0])], 0.5, None, [Place("conv", (2,))])


# Thresholds


def test_a_threshold_removes_what_scores_less(chain):
    small = prune(chain, criterion="l1", granularity="element", allocation="threshold:0.05")
    for name, mask in small.masks.items():
        assert torch.equal(mask, chain.tensor(name).abs() >= 0.05)
    assert {step["setting"] for step in small.plan} == {"element, l1, threshold:0.05"}
    assert prune(chain, criterion="l1", allocation="threshold:1e9").tensor("conv1.weight").shape[0] == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("threshold", "needs its number, as in 'threshold:0.01'"),
        ("threshold:x", "what follows the colon must be a number"),
        ("threshold:nan", "what follows the colon must be a number"),
        ("treshold:1", "Unknown allocation 'treshold:1'. Did you mean 'threshold'"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(name, says, chain):
    with pytest.raises(PenjingError, match=says):
        prune(chain, allocation=name)


def test_a_threshold_takes_no_amount(chain):
    with pytest.raises(PenjingError, match="'threshold:1' already says how much goes: leave amount out"):
        prune(chain, 0.5, allocation="threshold:1")


# Plans


def test_a_plan_gives_each_place_its_own_amount(chain):
    small = prune(chain, {"conv2": 0.75}, allocation="plan")
    assert [small.tensor(f"conv{i}.weight").shape[0] for i in (1, 2)] == [6, 2]
    small = prune(chain, {"conv1": 0.5, "head": 0.25}, granularity="element", allocation="plan")
    assert {name: int((~mask).sum()) for name, mask in small.masks.items()} == {"conv1.weight": 81, "head.weight": 6}


@pytest.mark.parametrize(
    ("amount", "says"),
    [
        ({"conv3": 0.5}, r"Unknown place 'conv3'\. Did you mean 'conv\d'"),
        ({"conv1": 1.0}, "amount is the share of units to remove"),
        (0.5, "allocation='plan' needs amount="),
        (None, "allocation='plan' needs amount="),
    ],
)
def test_plans_that_make_no_sense_are_refused(amount, says, chain):
    with pytest.raises(PenjingError, match=says):
        prune(chain, amount, allocation="plan")


def test_other_allocations_take_one_share_only(chain):
    with pytest.raises(PenjingError, match="amount is the share of units to remove"):
        prune(chain, {"conv1": 0.5})
