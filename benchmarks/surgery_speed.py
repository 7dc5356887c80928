"""Seconds to capture a network, label its channels, and remove half of them: one thread, each network of the zoo.

python benchmarks/surgery_speed.py
"""

import time
from itertools import pairwise

import torch

from _tables import publish
from penjing import zoo
from penjing.graph import capture, channels
from penjing.prune import prune

NAMES = ("lenet5", "resnet20", "resnet56", "vgg16_cifar", "mobilenet_v2", "squeezenet", "shufflenet_v2")


def main() -> None:
    """Measures each network once, after a first capture that loads what export needs."""
    torch.set_num_threads(1)
    capture(zoo.build("lenet300"), zoo.example_input("lenet300"))
    rows = []
    for name in NAMES:
        model, example = zoo.build(name), zoo.example_input(name)
        times = [time.perf_counter()]
        graph = capture(model, example)
        times.append(time.perf_counter())
        groups = len(channels(graph).groups)
        times.append(time.perf_counter())
        small = prune(graph, 0.5)
        times.append(time.perf_counter())
        seconds = [end - start for start, end in pairwise(times)]
        share = small.cost().params / graph.cost().params
        rows.append([name, groups, *(f"{s:.2f}" for s in seconds), f"{sum(seconds):.2f}", f"{share:.3f}"])
    publish(
        "surgery_speed",
        ["network", "groups", "capture, s", "channels, s", "prune half (l2), s", "sum, s", "share of parameters left"],
        rows,
    )


if __name__ == "__main__":
    main()
