"""Modules that a user keeps from pruning, from rounding, or from both: what techniques propose there."""

import pytest
import torch
from residual import Block
from torch import nn

from penjing.capabilities import find as capabilities
from penjing.graph import capture
from penjing.techniques import Scope, find


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        Block(32, 48),
        Block(32, 16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 4),
    )
    return capture(model.eval(), torch.randn(2, 3, 8, 8))


def places(graph, technique, **scope):
    """The places at which a technique proposes something to solvers, by kind."""
    calibration = [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))]
    options = find(technique).choices(graph, calibration, capabilities("onnxruntime"), Scope(**scope))
    return {(option.place.kind, option.place.path) for option in options}


GROUP, BRANCH, WEIGHT = ("group", "1.conv1"), ("branch", "1"), ("weight", "1.conv1")


def branch_of(graph):
    """The branch around the kept layer, by the name that it has here."""
    (name,) = [path for kind, path in places(graph, "prune") if kind == "branch" and path.startswith("1")]
    return "branch", name


@pytest.mark.parametrize(
    ("scope", "pruned", "removed", "factorised", "rounded"),
    [
        ({}, True, True, True, True),
        ({"exclude": ("1.conv1",)}, False, False, False, False),
        ({"keep_channels": ("1.conv1",)}, False, False, False, True),
        ({"keep_float": ("1.conv1",)}, True, False, True, False),
    ],
)
def test_each_kind_of_keeping_leaves_the_options_that_it_allows(graph, scope, pruned, removed, factorised, rounded):
    structure = places(graph, "prune", **scope)
    assert (GROUP in structure, branch_of(graph) in structure) == (pruned, removed)
    assert (WEIGHT in places(graph, "factorize", **scope)) == factorised
    assert (WEIGHT in places(graph, "quantize", **scope)) == rounded
    other = ("group", "2.conv1")
    assert other in structure and ("weight", "2.conv1") in places(graph, "quantize", **scope)
