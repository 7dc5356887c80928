"""Granularities that look into kernels: positions that shrink them, rectangles, and sets of patterns."""

import copy
import itertools
import math
import warnings

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from penjing import load, zoo
from penjing.errors import PenjingError
from penjing.graph import capture, channels
from penjing.pruning import criteria, prune
from penjing.pruning.granularities._patterns import patterns as patterns_view
from penjing.pruning.granularities._registry import find
from penjing.report import words
from penjing.targets import lower, run
from penjing.training import recover

BY_WEIGHT = [name for name, entry in criteria.items() if entry.level == "weight"]


def filled(graph, name, values):
    """The graph with other values in one weight."""
    graph = copy.deepcopy(graph)
    with torch.no_grad():
        graph.tensor(name).copy_(values.expand_as(graph.tensor(name)))
    return graph


def same_as_masked(small, graph, kept, x):
    """Tells whether a pruned graph computes what the whole one does with zeros at all other positions of these weights."""
    masked = copy.deepcopy(graph)
    with torch.no_grad():
        for name, window in kept.items():
            masked.tensor(name).mul_(window)
        torch.testing.assert_close(small(x), masked(x), atol=1e-5, rtol=1e-5)


# Positions


@settings(max_examples=10, deadline=None)
@given(amount=st.floats(0, 1, exclude_max=True), criterion=st.sampled_from(["l1", "l2"]))
def test_as_many_positions_go_as_asked_for_and_the_strongest_stay(amount, criterion, chain):
    small = prune(chain, amount, granularity="pattern", criterion=criterion)
    stay = 9 - min(math.floor(amount * 9 + 0.5), 8)
    kept = {}
    for name in ("conv1.weight", "conv2.weight"):
        weight = chain.tensor(name).detach()
        assert small.tensor(name).numel() == weight[:, :, 0, 0].numel() * stay
        strength = weight.abs().pow(1 if criterion == "l1" else 2).sum((0, 1))
        kept[name] = strength >= strength.flatten().sort(descending=True).values[stay - 1]
    same_as_masked(small, chain, kept, torch.randn(3, 3, 8, 8))
    assert small.masks == {}


def test_the_plan_counts_weights_and_says_what_became_of_the_kernel(chain):
    row = torch.tensor([[1.0, 2, 1], [9, 8, 7], [1, 1, 1]])
    graph = filled(filled(chain, "conv1.weight", row), "conv2.weight", row.flip(0).roll(1, 1).diag().diag() + 0.01)
    small = prune(graph, 6 / 9, granularity="pattern")
    assert [(step.place.path, words(step.to_json()), step.before, step.after) for step in small.plan] == [
        ("conv1", "pattern, l2, uniform; a 1×3 kernel", 162, 54),
        ("conv2", "pattern, l2, uniform; a gather of 3 positions", 432, 144),
        ("head", "pattern, l2, uniform; skipped: does not fit 3×8", 24, 24),
    ]
    assert small.tensor("conv1.weight").shape == (6, 3, 1, 3) and small.tensor("conv2.weight").shape == (8, 18, 1, 1)


def test_what_is_left_trains_is_saved_and_is_lowered(chain, data, tmp_path):
    small = prune(chain, 0.5, granularity="pattern")
    assert small.cost().params < chain.cost().params and small.cost().macs < 0.6 * chain.cost().macs
    before = copy.deepcopy(small)
    recover(small, data, epochs=4, lr=0.05, progress=False, channels_last=False, precision="float32")  # 12 steps
    assert not torch.equal(small.tensor("conv2.weight"), before.tensor("conv2.weight"))
    small.save(tmp_path / "small.penjing")
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(load(tmp_path / "small.penjing")(x), small(x))
    torch.testing.assert_close(run(lower(small, path=tmp_path / "small.onnx"), x), small(x), atol=1e-5, rtol=1e-5)


def test_the_lowered_file_holds_a_smaller_kernel_or_a_gather(chain, tmp_path):
    row = torch.tensor([[1.0, 2, 1], [9, 8, 7], [1, 1, 1]])
    graph = filled(filled(chain, "conv1.weight", row), "conv2.weight", torch.eye(3) + 0.01)
    model = onnx.load(lower(prune(graph, 6 / 9, granularity="pattern"), path=tmp_path / "model.onnx").path)
    sizes = {value.name: tuple(value.dims) for value in model.graph.initializer}
    assert sizes["conv1.weight"] == (6, 3, 1, 3) and sizes["conv2.weight"] == (8, 18, 1, 1)
    made = [node.op_type for node in model.graph.node if node.name.startswith("conv2/")]
    assert "Slice" in made and "Concat" in made and made[-1] == "Conv"


def test_filters_go_afterwards_and_positions_again(chain):
    small = prune(prune(chain, 4 / 9, granularity="pattern"), 0.5)
    assert {group.name: group.units for group in channels(small).groups} == {"conv1": 3, "conv2": 4}
    assert small(torch.randn(2, 3, 8, 8)).shape == (2, 3)
    square = filled(filled(chain, "conv1.weight", torch.ones(3, 3).tril()), "conv2.weight", torch.ones(3, 3).tril())
    twice = prune(prune(square, granularity="rectangle:2x2"), 0.5, granularity="pattern")
    assert twice.tensor("conv1.weight")[0, 0].numel() == 2


@pytest.mark.parametrize("criterion", BY_WEIGHT)
def test_every_criterion_of_weights_ranks_positions(criterion, chain, data):
    small = prune(chain, 0.5, criterion=criterion, granularity="pattern", data=data, seed=1)
    assert small.tensor("conv2.weight").numel() == 8 * 6 * 4
    assert torch.isfinite(small(torch.randn(2, 3, 8, 8))).all()


def test_a_kernel_that_something_else_reads_stays_masked_and_the_plan_says_so():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.up = nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 3, 3)

        def forward(self, x):
            return self.up(self.one(x)) * self.one.weight.square().sum()

    small = prune(capture(Reads(), torch.randn(2, 3, 8, 8)), 0.5, granularity="pattern")
    assert [words(step.to_json()).partition("; ")[2] for step in small.plan] == [
        "masked, since aten.square.default reads it too", "masked, since a transposed convolution uses it",
    ]  # fmt: skip
    assert set(small.masks) == {"one.weight", "up.weight"} and small.tensor("one.weight").shape[2:] == (3, 3)


def test_positions_of_a_resnet_with_every_allocation():
    graph = capture(zoo.resnet20(), torch.randn(2, 3, 16, 16))
    for allocation in ("uniform", "global"):
        small = prune(graph, 0.5, granularity="pattern", allocation=allocation)
        assert small.cost().macs < 0.6 * graph.cost().macs and small(torch.randn(1, 3, 16, 16)).shape == (1, 10)


# Rectangles


@pytest.mark.parametrize(("size", "rows", "columns"), [("2x2", 2, 2), ("1x3", 1, 3), ("3x1", 3, 1), ("3x3", 3, 3)])
def test_the_best_rectangle_of_that_size_stays(size, rows, columns, chain):
    small = prune(chain, granularity=f"rectangle:{size}")
    kept = {}
    for name in ("conv1.weight", "conv2.weight"):
        strength = chain.tensor(name).detach().square().sum((0, 1))
        corners = itertools.product(range(4 - rows), range(4 - columns))
        i, j = max(corners, key=lambda at: strength[at[0] : at[0] + rows, at[1] : at[1] + columns].sum())
        kept[name] = torch.zeros(3, 3)
        kept[name][i : i + rows, j : j + columns] = 1
        assert small.tensor(name).shape[2:] == (rows, columns)
    same_as_masked(small, chain, kept, torch.randn(3, 3, 8, 8))


def test_layers_that_the_rectangle_does_not_fit_in_stay_and_matrices_are_no_surprise():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, (1, 2)), nn.Flatten(), nn.Linear(100, 2)
    )
    graph = capture(model, torch.randn(2, 3, 7, 8))
    with pytest.warns(UserWarning, match=r"'rectangle:2x1' does not fit, so these stay: 2$"):
        small = prune(graph, granularity="rectangle:2x1")
    assert small.tensor("0.weight").shape[2:] == (2, 1) and small.tensor("2.weight").shape[2:] == (1, 2)
    with pytest.raises(PenjingError, match=r"'rectangle:3' fits no layer of this model"):
        prune(graph, granularity="rectangle:3")


@pytest.mark.parametrize("name", ["rectangle:1x3", "patterns:8x4"])
def test_a_name_that_carries_its_amount_takes_no_other(name, chain):
    with pytest.raises(PenjingError, match=f"'{name}' already says how much stays: leave amount and allocation out"):
        prune(chain, 0.5, granularity=name)


# Sets of patterns


def natural(kernel, entries):
    """The pattern that a 3×3 kernel has by itself: its centre and, of the rest, its largest magnitudes."""
    rest = sorted((i for i in range(9) if i != 4), key=lambda i: -abs(float(kernel[i])))
    return frozenset([4, *rest[: entries - 1]])


@pytest.mark.parametrize(("count", "entries"), [(1, 4), (8, 4), (3, 2), (100, 4)])
def test_each_kernel_keeps_the_best_of_the_most_frequent_patterns(count, entries, chain):
    small = prune(chain, granularity=f"patterns:{count}x{entries}")
    kernels = torch.cat([chain.tensor(name).detach().reshape(-1, 9) for name in ("conv1.weight", "conv2.weight")])
    masks = torch.cat([small.masks[name].reshape(-1, 9) for name in ("conv1.weight", "conv2.weight")])
    times = {}
    for kernel in kernels:
        times[natural(kernel, entries)] = times.get(natural(kernel, entries), 0) + 1
    used = {frozenset(mask.nonzero().flatten().tolist()) for mask in masks}
    assert len(used) <= count and all(len(one) == entries and 4 in one for one in used)
    least = sorted(times.values(), reverse=True)[min(count, len(times)) - 1]
    assert all(times[one] >= least for one in used)
    for kernel, mask in zip(kernels, masks, strict=True):
        energy = lambda one, kernel=kernel: float(kernel[list(one)].square().sum())  # noqa: E731
        assert energy(mask.nonzero().flatten().tolist()) >= max(map(energy, used)) - 1e-6
    if count == 100:  # then each has its own
        for kernel, mask in zip(kernels, masks, strict=True):
            assert frozenset(mask.nonzero().flatten().tolist()) == natural(kernel, entries)


def test_kernels_of_each_size_have_a_set_of_their_own_and_those_without_a_centre_may_keep_any():
    graph = capture(
        nn.Sequential(nn.Conv2d(2, 9, 3), nn.Conv2d(9, 9, 2), nn.Conv2d(9, 9, 5)), torch.randn(2, 2, 12, 12)
    )
    small = prune(graph, granularity="patterns:2x3")
    for name, window in (("0.weight", 9), ("1.weight", 4), ("2.weight", 25)):
        mask = small.masks[name].reshape(-1, window)
        assert (mask.sum(1) == 3).all() and len(mask.unique(dim=0)) == 2
        assert window == 4 or mask[:, window // 2].all()


def test_pattern_sets_leave_shapes_alone_and_kernels_can_go_beside_them(chain):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = prune(chain, granularity="patterns:8x4")
    connected = prune(small, 0.3, granularity="kernel")
    assert {n: t.shape for n, t in small.tensors().items()} == {n: t.shape for n, t in chain.tensors().items()}
    left = connected.masks["conv2.weight"].reshape(-1, 9).sum(1)
    assert sorted(left.unique().tolist()) == [0, 4] and int((left == 0).sum()) == math.floor(0.3 * 48 + 0.5)


def test_a_kernel_with_no_more_weights_than_a_pattern_does_not_fit():
    assert patterns_view(torch.randn(2, 2, 2, 2), 8, 4) is None
    assert patterns_view(torch.randn(2, 2), 8, 4) is None
    assert find("patterns:8x4").arguments == {"count": 8, "entries": 4}
