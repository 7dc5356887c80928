"""A kernel with other numbers of channels is the kernel that is in the graph from which the channels really went."""

import json

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.planning.latency import Kernel, kernels_of


class Tokens(nn.Module):
    """Channels that become features of tokens, over which a mean is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.inner, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 24), nn.Linear(24, 4)
        self.norm = nn.LayerNorm(24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.convolution(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.inner(tokens)).mean(1))


class Means(nn.Module):
    """A mean over height and width that drops both axes."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.convolution(x)).mean((2, 3)))


MODELS = {
    "resnet20": lambda: pj.zoo.build("resnet20"),
    "mobilenet_v2": lambda: pj.zoo.build("mobilenet_v2_cifar"),
    "shufflenet_v2": lambda: pj.zoo.build("shufflenet_v2_cifar"),
    "tokens": Tokens,
    "means": Means,
}


def resized(kernel: Kernel, thinned: Kernel) -> tuple[object, object]:
    """Returns a kernel with the channels that one in a thinned graph has, and that one, in all that channels tell."""
    if kernel.op == "pad":  # the channels that went may have stood in front of or behind those that are added
        return without_pads(kernel.resized(outs=thinned.outs)), without_pads(thinned)
    if kernel.op == "chunk":  # of a thinned network, the two parts may be unequal
        return kernel.resized(outs=thinned.ins // 2).inputs, thinned.inputs
    return kernel.resized(thinned.ins, thinned.outs) if kernel.weight else kernel.resized(outs=thinned.outs), thinned


def without_pads(kernel: Kernel) -> tuple:
    front, behind = json.loads(kernel.arguments)[1][-2:]
    return kernel.op, kernel.inputs, kernel.output, front + behind


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("amount", [0.25, 0.5])
def test_a_resized_kernel_is_that_of_the_thinned_graph(name, amount):
    torch.manual_seed(0)
    graph = pj.capture(MODELS[name]().eval(), torch.randn(2, 3, 32, 32))
    before = kernels_of(graph)
    after = kernels_of(pj.prune(graph, amount=amount, criterion="l2"))
    assert before.keys() == after.keys()
    assert sum(kernel != after[node] for node, kernel in before.items()) > len(before) / 2
    for node, kernel in before.items():
        made, really = resized(kernel, after[node])
        assert made == really, node
