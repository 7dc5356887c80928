"""Seconds to capture a network, label its channels, and remove half of them: one thread.

python benchmarks/surgery_speed.py          # the networks of the zoo
python benchmarks/surgery_speed.py large    # ResNet-50, DenseNet-121 and ViT-B/16; needs torchvision
python benchmarks/surgery_speed.py depth    # ResNets of growing depth: how the time grows with the number of nodes
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from _tables import publish
from penjing import zoo
from penjing.graph import capture, channels
from penjing.pruning import prune
from penjing.zoo._resnet import ResNet

ZOO = ("lenet5", "resnet20", "resnet56", "vgg16_cifar", "mobilenet_v2", "squeezenet", "shufflenet_v2")
LARGE = ("resnet50", "densenet121", "vit_b_16")
BLOCKS = (3, 9, 18, 36, 72)  # per stage
REPEATS = 3

Named = tuple[str, nn.Module, Tensor]


def of_zoo() -> Iterator[Named]:
    for name in ZOO:
        yield name, zoo.build(name), zoo.example_input(name)


def large() -> Iterator[Named]:
    from torchvision.models import get_model

    for name in LARGE:
        yield name, get_model(name, weights=None), torch.randn(2, 3, 224, 224)


def depth() -> Iterator[Named]:
    for blocks in BLOCKS:
        yield f"resnet{6 * blocks + 2}", ResNet(blocks, 10, 3), torch.randn(2, 3, 32, 32)


LISTS: dict[str, tuple[str, Callable[[], Iterator[Named]]]] = {
    "zoo": ("surgery_speed", of_zoo),
    "large": ("surgery_speed_large", large),
    "depth": ("surgery_speed_depth", depth),
}


def seconds(call: Callable[[], object]) -> float:
    """Returns the median of a few runs."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measures each network, after a first one that loads what export needs."""
    table, networks = LISTS[sys.argv[1] if len(sys.argv) > 1 else "zoo"]
    torch.set_num_threads(1)
    prune(capture(zoo.build("lenet300"), zoo.example_input("lenet300")), 0.5)
    rows = []
    for name, model, example in networks():
        start = time.perf_counter()
        graph = capture(model, example)
        captured = time.perf_counter() - start
        labelled = seconds(lambda graph=graph: channels(graph))
        pruned = seconds(lambda graph=graph: prune(graph, 0.5))
        share = prune(graph, 0.5).cost().params / graph.cost().params
        nodes, groups = len(graph.program.graph.nodes), len(channels(graph).groups)
        rows.append([name, nodes, groups, *(f"{s:.2f}" for s in (captured, labelled, pruned)), f"{share:.3f}"])
    publish(
        table,
        ["network", "nodes", "groups", "capture, s", "channels, s", "prune half (l2), s", "share of parameters left"],
        rows,
    )


if __name__ == "__main__":
    main()
