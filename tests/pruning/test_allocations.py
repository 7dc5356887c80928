"""Allocations against their papers' formulas, written out."""

import copy
import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import channels, remove
from penjing.pruning import allocations, prune
from penjing.pruning.allocations._registry import Scored
from penjing.pruning.allocations._sensitivity import marks
from penjing.report import words
from penjing.tasks import Classification, Unlabelled

SHAPES = st.lists(st.lists(st.integers(1, 12), min_size=2, max_size=4), min_size=1, max_size=5)
AMOUNTS = st.floats(0, 1, exclude_max=True)


# ERK


def erk(shapes, amount):
    places = [Scored(str(i), tuple(shape)) for i, shape in enumerate(shapes)]
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


@pytest.mark.parametrize("allocation", ["uniform", "global", "erk", "lamp"])
@pytest.mark.parametrize("zeros", [False, True], ids=["", "zeros-left"])
def test_what_went_before_counts_as_gone_and_goes_first(allocation, zeros, chain):
    graph = copy.deepcopy(chain)
    if zeros:
        with torch.no_grad():
            graph.tensor("conv2.weight")[0, 0] = 0
    half = prune(graph, 0.5, granularity="element", allocation=allocation)
    more = prune(half, 0.75, granularity="element", allocation=allocation)
    at_once = prune(graph, 0.75, granularity="element", allocation=allocation)
    assert {name: int(mask.sum()) for name, mask in more.masks.items()} == {
        name: int(mask.sum()) for name, mask in at_once.masks.items()
    }
    assert not any((mask & ~half.masks[name]).any() for name, mask in more.masks.items() if name in half.masks)


def test_lamp_refuses_scores_below_zero():
    with pytest.raises(PenjingError, match=r"'lamp' needs scores that aren't negative, and some of conv are"):
        allocations["lamp"].function([torch.tensor([1.0, -1.0])], 0.5, None, [Scored("conv", (2,))])


# Thresholds


def test_a_threshold_removes_what_scores_less(chain):
    small = prune(chain, criterion="l1", granularity="element", allocation="threshold:0.05")
    for name, mask in small.masks.items():
        assert torch.equal(mask, chain.tensor(name).abs() >= 0.05)
    assert {words(step.to_json()) for step in small.plan} == {"element, l1, threshold:0.05"}
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


def test_what_scores_as_much_as_the_threshold_stays():
    scores = [torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0.5, 0.0])]
    assert allocations["threshold"].function(scores, 0.5, None) == [2, 1]


# Shares of equal size


@pytest.mark.parametrize(
    ("units", "amount", "kept"), [(3, 0.5, 1), (5, 0.5, 2), (4, 0.5, 2), (10, 0.26, 7), (10, 0.24, 8)]
)
def test_a_uniform_share_goes_to_the_nearest_number_of_units_and_from_the_middle_more_go(units, amount, kept):
    assert allocations["uniform"].function([torch.zeros(units)], amount, None) == [kept]


@given(amount=AMOUNTS, seed=st.integers(0, 99))
def test_a_users_rounding_is_never_asked_for_no_units(amount, seed):
    """A place keeps at least one, so a function that divides by what is kept must not meet a zero."""
    scores = list(torch.rand(12, generator=torch.Generator().manual_seed(seed)).split([3, 1, 8]))
    asked: list[int] = []
    allocations["global"].function(scores, amount, lambda kept: asked.append(kept) or kept)
    assert len(asked) == 3 and min(asked) >= 1


# Plans


def test_a_place_that_a_plan_does_not_name_keeps_its_units_whatever_multiple_is_asked_for():
    places = [Scored("first", (10, 3)), Scored("second", (10, 3))]
    assert allocations["plan"].function([torch.zeros(10)] * 2, {"first": 0.3}, 8, places) == [8, 10]


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


# One ranking of all

SCALES = {
    "global": lambda s: np.sqrt(np.mean(s**2)),
    "global:l2": np.linalg.norm,
    "global:mean": lambda s: np.abs(s).mean(),
    "global:max": lambda s: np.abs(s).max(),
    "global:none": lambda s: 1.0,
}


@pytest.mark.parametrize("name", SCALES)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9))
def test_global_removes_the_lowest_of_all_after_division_by_each_groups_scale(name, seed, amount):
    rng = np.random.default_rng(seed)
    groups = [rng.gamma(1, scale, size) for scale, size in ((1.0, 12), (10.0, 20), (0.1, 5))]
    kept = allocations[name].function([torch.from_numpy(group) for group in groups], amount, None)
    relative = [np.sort(group / SCALES[name](group)) for group in groups]
    gone = sorted(value for group in relative for value in group[:-1])  # the best of each stays
    gone = gone[: math.floor(amount * 37 + 0.5)]
    assert kept == [len(group) - sum(value in gone for value in group) for group in relative]


@pytest.mark.parametrize("name", SCALES)
def test_scores_may_be_as_small_as_squares_of_small_gradients(name):
    rng = np.random.default_rng(0)
    groups = [torch.from_numpy(rng.gamma(1, scale, 20)).float() for scale in (1.0, 3.0)]
    kept = allocations[name].function(groups, 0.5, None)
    assert allocations[name].function([group * 1e-28 for group in groups], 0.5, None) == kept
    assert allocations[name].function([torch.zeros(20), torch.ones(20)], 0.4, None) == [4, 20]


def test_every_normalisation_of_a_global_ranking_is_listed():
    assert set(SCALES) == {name for name in allocations if name.startswith("global")}


# Sensitivity


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.floats(0, 0.99), st.integers(0, 2**32 - 1))
def test_sensitivity_has_the_least_largest_damage_of_all_amounts_of_that_share(sizes, amount, seed):
    rng = np.random.default_rng(seed)
    curves = [np.concatenate([[0.0], rng.normal(0.2, 1, size).cumsum()]) for size in sizes]
    scores = [torch.from_numpy(rng.permutation(size)).float() for size in sizes]
    kept = allocations["sensitivity"].function(
        scores,
        amount,
        None,
        damage=lambda counts: [[c[n] for n in some] for c, some in zip(curves, counts, strict=True)],
    )
    total = min(math.floor(amount * sum(sizes) + 0.5), sum(sizes) - len(sizes))
    rising = [np.maximum.accumulate(curve) for curve in curves]

    def largest(gone):
        return max(float(curve[n]) for curve, n in zip(rising, gone, strict=True))

    ways = [gone for gone in product(*(range(size) for size in sizes)) if sum(gone) == total]
    found = [size - keep for size, keep in zip(sizes, kept, strict=True)]
    assert tuple(found) in ways and largest(found) == min(map(largest, ways))


def test_curves_are_measured_at_eighths_and_at_all_but_one():
    assert marks(64) == [8, 16, 24, 32, 40, 48, 56, 63]
    assert marks(3) == [1, 2] and marks(2) == [1] and marks(1) == []


def loss_of(graph, data):
    with torch.no_grad():
        return float(torch.stack([data.task.loss(graph(x), y) for x, y in data.calibration]).mean())


def lines(size, curve):
    """What the loss gains by the number of units that go."""
    at = [0, *marks(size)]
    return np.interp(range(size), at, np.maximum.accumulate([0.0, *curve]))


def test_sensitivity_of_channels_is_that_of_surgery_one_group_at_a_time(chain, data):
    found = channels(chain)
    curves = []
    for position, group in enumerate(found.groups):
        order = chain.tensor(group.made_by()[0]).detach().flatten(1).norm(dim=1).argsort().numpy()
        losses = [loss_of(remove(chain, found, {position: order[:n]}), data) for n in marks(group.units)]
        curves.append(lines(group.units, [loss - loss_of(chain, data) for loss in losses]))
    best = min(
        (gone for gone in product(range(6), range(8)) if sum(gone) == 7),
        key=lambda gone: max(curve[n] for curve, n in zip(curves, gone, strict=True)),
    )
    small = prune(chain, 0.5, allocation="sensitivity", data=data)
    kept = [small.tensor(f"conv{i}.weight").shape[0] for i in (1, 2)]
    assert max(curve[size - k] for curve, size, k in zip(curves, (6, 8), kept, strict=True)) == pytest.approx(
        max(curve[n] for curve, n in zip(curves, best, strict=True)), rel=1e-3
    )
    assert sum(kept) == 7


def test_sensitivity_of_weights_has_a_smaller_largest_damage_than_other_amounts_of_that_share(chain, data):
    small = prune(chain, 0.5, granularity="element", allocation="sensitivity", data=data)
    names = ["conv1.weight", "conv2.weight", "head.weight"]
    sizes = [chain.tensor(name).numel() for name in names]
    gone = [int((~small.masks.get(name, torch.tensor(True))).sum()) for name in names]
    assert sum(gone) == sum(sizes) // 2
    curves = []
    for name, size in zip(names, sizes, strict=True):
        losses = []
        for count in marks(size):
            alone = copy.deepcopy(chain)
            weight = alone.tensor(name)
            with torch.no_grad():
                weight.view(-1)[weight.abs().flatten().argsort()[:count]] = 0
            losses.append(loss_of(alone, data) - loss_of(chain, data))
        curves.append(lines(size, losses))

    def largest(counts):
        return max(float(curve[count]) for curve, count in zip(curves, counts, strict=True))

    others = [(i, j, sum(gone) - i - j) for i in range(0, 162, 5) for j in range(0, 432, 5)]
    others = [counts for counts in others if 0 <= counts[2] < sizes[2]]
    assert len(others) > 100 and largest(gone) <= min(map(largest, others)) + 1e-6


def test_sensitivity_leaves_the_graph_as_it_was(chain, data):
    before = {name: value.clone() for name, value in chain.tensors().items()}
    prune(chain, 0.5, allocation="sensitivity", data=data, round_to=2)
    assert all(torch.equal(value, before[name]) for name, value in chain.tensors().items())


def test_sensitivity_measures_on_calibration_data_once(chain, data):
    class Counted(list):
        passes = 0

        def __iter__(self):
            Counted.passes += 1
            return super().__iter__()

    batches = Counted(data.calibration)
    prune(chain, 0.5, allocation="sensitivity", data=Data(None, batches, None, data.task), round_to=2)
    assert Counted.passes == 1


def test_sensitivity_to_a_loss_that_is_no_number_is_an_error_that_names_the_place(chain, data):
    batches = [(torch.full_like(inputs, torch.nan), targets) for inputs, targets in data.train]
    with pytest.raises(PenjingError, match="the loss is not a finite number where units of conv1 go"):
        prune(chain, 0.5, allocation="sensitivity", data=Data(None, batches, None, data.task))


def test_sensitivity_without_labelled_data_is_refused(chain, residual, residual_data, data):
    with pytest.raises(PenjingError, match="The allocation 'sensitivity' needs data: pass data="):
        prune(chain, 0.5, allocation="sensitivity")
    unlabelled = Data(None, [(batch[0],) for batch in data.train], None, Unlabelled())
    with pytest.raises(PenjingError, match="labelled data"):
        prune(chain, 0.5, allocation="sensitivity", data=unlabelled)
    without = Data(None, [(batch[0],) for batch in data.train], None, Classification(3))
    with pytest.raises(PenjingError, match=r"labels, and the batches of data\.calibration hold none"):
        prune(chain, 0.5, allocation="sensitivity", data=without)
    with pytest.raises(PenjingError, match="there is only one place"):
        prune(residual, 0.5, granularity="layer", allocation="sensitivity", data=residual_data)


# Shares by the sizes of layers


@given(SHAPES, AMOUNTS)
def test_layer_share_takes_as_many_as_asked_for_and_leaves_one_of_each(shapes, amount):
    places = [Scored(str(i), tuple(shape)) for i, shape in enumerate(shapes)]
    sizes = [shape[0] for shape in shapes]
    kept = allocations["layer_share"].function([torch.zeros(size) for size in sizes], amount, None, places)
    assert all(1 <= one <= size for one, size in zip(kept, sizes, strict=True))
    assert sum(sizes) - sum(kept) == min(math.floor(amount * sum(sizes) + 0.5), sum(sizes) - len(sizes))


def test_layer_share_takes_of_layers_in_proportion_to_the_sum_of_their_relative_sizes():
    places = [Scored("wide", (100, 200, 3, 3)), Scored("half", (100, 100, 3, 3)), Scored("small", (50, 50))]
    scores = [torch.zeros(place.shape[0]) for place in places]
    kept = allocations["layer_share"].function(scores, 0.3, None, places)
    gone = np.array([100, 100, 50]) - kept
    raw = np.array([100 * (1 + 1), 100 * (0.5 + 1), 50 * (0.25 + 0.5)])  # by in / 200 and out / 100
    assert gone.sum() == 75 and (np.abs(gone - 75 * raw / raw.sum()) < 1).all()
