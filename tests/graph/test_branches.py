import copy

import pytest
import torch
from branch_networks import (
    Context,
    Parallel,
    PostNorm,
    Projected,
    Restoration,
    Shared,
    TransformerBlock,
    VisionTransformer,
    noisy,
)
from torch import nn

from penjing import zoo
from penjing.errors import PenjingError
from penjing.graph import Graph, branches, capture, remove_branches
from penjing.graph.capture.verify import close

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
NETWORKS = {
    "resnet20": (lambda: zoo.resnet20(), (torch.randn(2, 3, 32, 32),), 7),
    "vision_transformer": (VisionTransformer, (IMAGE,), 4),
    "masked_block": (TransformerBlock, (TOKENS, torch.zeros(5, 5)), 2),
    "post_norm": (PostNorm, (TOKENS, torch.zeros(2, 5)), 1),
    "parallel": (Parallel, (IMAGE,), 2),
    "restoration": (Restoration, (IMAGE,), 4),
    "context": (Context, (IMAGE,), 1),
    "shared": (Shared, (torch.randn(2, 5),), 3),
}


@pytest.fixture(scope="module")
def graphs():
    return {name: capture(noisy(make()), inputs) for name, (make, inputs, _) in NETWORKS.items()}


def zeroed(graph: Graph, gone) -> Graph:
    """Returns the graph with nothing added where one of the branches is added."""
    graph = copy.deepcopy(graph)
    nodes = {node.name: node for node in graph.program.graph.nodes}
    for branch in gone:
        node = nodes[branch.addition]
        arguments = list(node.args)
        with graph.program.graph.inserting_before(node):
            for position, argument in enumerate(arguments):
                if position != branch.identity and isinstance(argument, torch.fx.Node):
                    arguments[position] = graph.program.graph.call_function(torch.ops.aten.mul.Scalar, (argument, 0.0))
        node.args = tuple(arguments)
    return graph.refresh()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_without_a_branch_computes_what_it_would_if_that_branch_gave_zeros(name, graphs):
    graph, (_, inputs, count) = graphs[name], NETWORKS[name]
    found = branches(graph)
    assert len(found) == count
    outputs = graph(*inputs)
    for gone in {found[:1], found}:
        small = remove_branches(graph, gone)
        assert close(small(*inputs), zeroed(graph, gone)(*inputs), 1e-5)
        assert small(*inputs).shape == outputs.shape and not close(small(*inputs), outputs, 1e-3)
        assert len(small.program.graph.nodes) < len(graph.program.graph.nodes)
        assert small.cost().macs < graph.cost().macs
    assert close(graph(*inputs), outputs, 0.0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_branch_knows_what_goes_with_it(name, graphs):
    graph = graphs[name]
    before = graph.cost()
    for branch in branches(graph)[-2:]:
        small = remove_branches(graph, [branch])
        after = small.cost()
        assert (before.params - after.params, before.macs - after.macs) == (branch.params, branch.macs)
        left = {node.name for node in small.program.graph.nodes}
        assert left == {node.name for node in graph.program.graph.nodes} - {*branch.nodes, branch.addition}
        assert all(name in graph.tensors() for name in branch.weights)


def test_branches_are_named_after_the_modules_that_hold_their_weights(graphs):
    assert [branch.name for branch in branches(graphs["resnet20"])] == [
        "layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2",
    ]  # fmt: skip
    assert [branch.name for branch in branches(graphs["vision_transformer"])][:2] == [
        "blocks.0.attention",
        "blocks.0.mlp",
    ]
    assert [branch.name for branch in branches(graphs["parallel"])] == ["one", "two"]


def test_a_branch_around_others_takes_them_with_it(graphs):
    *inner, outer = branches(graphs["restoration"])
    assert [branch.name for branch in inner] == ["body.0", "body.1", "body.2"]
    assert all(branch.addition in outer.nodes for branch in inner)
    assert outer.macs > sum(branch.macs for branch in inner)


def test_weights_that_others_read_stay_and_names_are_told_apart(graphs):
    found = branches(graphs["shared"])
    assert [branch.params for branch in found] == [0, 0, 0] and all(branch.macs == 64 for branch in found)
    assert len({branch.name for branch in found}) == 3
    assert "layer.weight" in remove_branches(graphs["shared"], found[:2]).tensors()
    assert "layer.weight" not in remove_branches(graphs["shared"], found).tensors()


def test_sums_without_an_identity_are_no_branches():
    assert branches(capture(noisy(Projected()), IMAGE)) == ()


def test_a_value_that_is_wider_behind_the_sum_is_no_identity():
    class Wider(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 6)

        def forward(self, x):
            x = x.mean(-1, keepdim=True)
            return x + self.layer(x)

    assert branches(capture(Wider(), torch.randn(2, 3, 5))) == ()


def test_a_value_that_is_the_same_for_all_samples_is_no_identity_of_one_that_is_not():
    class Queries(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries, self.layer = nn.Parameter(torch.randn(1, 4, 6)), nn.Linear(6, 6)

        def forward(self, x):
            queries = self.queries * 2
            return queries + self.layer(queries @ x)

    assert branches(capture(Queries(), torch.randn(2, 6, 6))) == ()


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ({"include": ["layer2"]}, ["layer2.1", "layer2.2"]),
        ({"include": ["layer*.2"], "exclude": ["layer3"]}, ["layer1.2", "layer2.2"]),
        ({"include": ["*.conv1"]}, []),
        ({"exclude": ["*.0", "*.1.bn2", "layer3.2.conv1"]}, ["layer1.2", "layer2.2"]),
    ],
)
def test_patterns_choose_among_branches(patterns, names, graphs):
    assert [branch.name for branch in branches(graphs["resnet20"], **patterns)] == names


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_path(graphs):
    with pytest.raises(PenjingError, match=r"'layer4\.1'. Did you mean 'layer\d\.1'"):
        branches(graphs["resnet20"], include=["layer4.1"])


def test_a_branch_of_another_graph_is_refused(graphs):
    (branch,) = branches(graphs["context"])
    with pytest.raises(PenjingError, match="no branch of this graph"):
        remove_branches(graphs["post_norm"], [branch])


def test_masks_of_what_went_go_too_and_what_is_left_trains(graphs):
    graph = copy.deepcopy(graphs["vision_transformer"])
    graph.masks = {
        name: torch.ones_like(graph.tensor(name), dtype=torch.bool) for name in dict(graph.named_parameters())
    }
    small = remove_branches(graph, branches(graph)[2:])
    assert set(small.masks) == set(dict(small.named_parameters())) < set(graph.masks)
    small.train()(torch.randn(3, 3, 8, 8)).sum().backward()
    small.apply_masks()
    assert all(parameter.grad is not None for parameter in small.parameters())
