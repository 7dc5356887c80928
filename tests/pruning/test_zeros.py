"""Zeros that masks hold, and where they came from."""

import torch

from penjing.graph import Option, Place, Plan
from penjing.pruning import prune
from penjing.pruning.zeros import zeros


def said(graph):
    return {one.place: ([kind.name for kind in one.granularities], one.weights, one.zeros) for one in zeros(graph)}


def test_each_masked_weight_is_counted_with_the_granularities_that_the_plan_names(chain):
    sparse = prune(chain, 0.5, granularity="element", exclude=["conv1"])
    both = prune(prune(sparse, granularity="2:4", include=["head"]), 0.25, granularity="kernel", include=["conv1"])
    assert said(both) == {
        "conv1": (["kernel"], 162, 9 * 5),  # round(0.25 · 18)
        "conv2": (["element"], 432, 216),
        "head": (["element", "2:4"], 24, int((both.tensor("head.weight") == 0).sum())),
    }


def test_what_shrinks_leaves_no_zeros(chain):
    assert zeros(prune(chain, 0.5)) == zeros(prune(chain, 0.5, granularity="pattern")) == zeros(chain) == ()


def test_channels_that_went_later_are_not_the_zeros_granularity(chain):
    both = prune(prune(chain, 0.5, granularity="element", include=["conv2"]), 0.5)
    assert {place: names for place, (names, _, _) in said(both).items()} == {"conv2": ["element"]}


def test_masks_that_the_plan_does_not_tell_of_are_counted_too(chain):
    graph = prune(chain, 0.0)
    graph.masks["conv1.weight"] = torch.ones(6, 3, 3, 3, dtype=torch.bool).index_fill(0, torch.tensor([0]), False)
    graph.plan = Plan(
        (
            Option(Place("weight", "conv1"), "prune", {"criterion": "l2"}, 1, 1),
            Option(Place("weight", "conv1"), "quantize", {"granularity": "element"}, 1, 1),
        )
    )
    assert said(graph) == {"conv1": ([], 162, 27)}
