"""Widths that the runtime likes: the same network with the same share of its MACs, in any widths and in rounded ones.

python benchmarks/pruning_widths.py RESNET20.safetensors RESNET56.safetensors CIFAR10.zip

Latencies are of the files that Penjing lowers to, in ONNX Runtime on one thread, all variants of a network taking turns.
ResNet-20's variants are trained for one epoch each, to see what rounding costs in accuracy. A run that was killed goes on
where it stopped when it is started again.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import penjing as pj
from _pruning import Ranking, Rows, judge, macs_by_unit, network, ranked, to_ratio
from _tables import publish
from penjing.targets import measure_together

# How many times fewer MACs, and in multiples of what. In multiples of 16 a network of 16, 32 and 64 channels has at most
# 1.76 times fewer; the question there is whether its widths are as fast at 1.6 as any widths are at 2.1.
TARGETS = ((2.1, None), (2.1, 4), (2.1, 8), (1.6, None), (1.6, 16))
BATCHES = (1, 32)
INNER = {"7, 15, 30": (7, 15, 30), "8, 16, 32": (8, 16, 32), "16, 16, 32": (16, 16, 32)}  # of each block, by stage
WHOLE = "unpruned"
LR = 0.03

Variants = dict[str, Callable[[], pj.Graph]]


def by_inner(base: pj.Graph, widths: tuple[int, ...]) -> pj.Graph:
    """Returns the graph with these numbers of channels within the blocks of each stage; what blocks add stays whole."""
    shares = {}
    for group in pj.channels(base).groups:
        if group.name.startswith("layer") and group.name.endswith(".conv1"):
            shares[group.name] = 1 - widths[int(group.name[len("layer")]) - 1] / group.units
    return pj.prune(base, shares, allocation="plan")


def by_ratio(base: pj.Graph, known: Ranking, costs: dict[str, int], ratio: float, step: int | None) -> pj.Graph:
    """Returns the graph with `ratio` times fewer MACs, wherever taylor's score per MAC is lowest, in multiples of `step`."""

    def prune(amount: float) -> pj.Graph:
        shares = known.per(costs, amount)
        return pj.prune(base, shares, criterion=known.criterion, allocation="plan", round_to=step)

    return to_ratio(prune, base.cost().macs, ratio)[1]


def variants(base: pj.Graph, data: pj.Data) -> Variants:
    """Returns how each variant is made."""
    known, costs = ranked(base, "taylor", data), macs_by_unit(base)
    made: Variants = {WHOLE: lambda: base}
    for name, widths in INNER.items():
        made[f"inner channels {name}"] = lambda widths=widths: by_inner(base, widths)  # type: ignore[misc]
    for ratio, step in TARGETS:
        name = f"taylor per MAC, {ratio}×, " + (f"round_to={step}" if step else "any widths")
        made[name] = lambda ratio=ratio, step=step: by_ratio(base, known, costs, ratio, step)  # type: ignore[misc]
    return made


def described(graph: pj.Graph, base: pj.Graph) -> dict[str, Any]:
    """Returns what is kept."""
    return {
        "ratio": base.cost().macs / graph.cost().macs,
        "params": graph.cost().params,
        "widths": [group.units for group in pj.channels(graph).groups],
    }


def latencies(graphs: dict[str, pj.Graph], batch: int) -> dict[str, float]:
    """Returns the median milliseconds of each, taking turns."""
    with tempfile.TemporaryDirectory() as folder:
        files = {
            name: pj.lower(graph, path=Path(folder, f"{at}.onnx")) for at, (name, graph) in enumerate(graphs.items())
        }
        found = measure_together(files, batch=batch, runs=100 if batch > 1 else 400, seconds=120, memory=False)
    return {name: measured.latency_ms.median for name, measured in found.items()}


def trained(graph: pj.Graph, base: pj.Graph, data: pj.Data) -> dict[str, Any]:
    """Trains for one epoch with the unpruned network as teacher, and judges on all test images."""
    pj.recover(
        graph, data, teacher=base, epochs=1, lr=LR, precision="bfloat16", channels_last=True, seed=0, progress=False
    )
    return judge(graph, data)


def main(resnet20: str, resnet56: str, path: str) -> None:
    """Runs what is missing, then publishes."""
    torch.set_num_threads(1)
    data, rows = pj.data.cifar10(path), Rows("pruning_widths")
    table = []
    for name, weights in (("resnet56", resnet56), ("resnet20", resnet20)):
        base = network(name, Path(weights))
        graphs = {variant: make() for variant, make in variants(base, data).items()}
        for variant, graph in graphs.items():
            rows.once([name, variant], lambda graph=graph, base=base: described(graph, base))
        for kind in ("float", "int8"):
            lowered = graphs if kind == "float" else {v: pj.quantize(graph, data) for v, graph in graphs.items()}
            for batch in BATCHES:
                rows.once([name, kind, batch], lambda lowered=lowered, batch=batch: latencies(lowered, batch))
        if name == "resnet20":
            for variant, graph in graphs.items():
                rows.once([name, "trained", variant], lambda graph=graph, base=base: trained(graph, base, data))
        table += lines(rows, name, list(graphs))
    speeds = [f"{kind}, batch {batch}" for kind in ("float", "int8") for batch in BATCHES]
    publish("pruning_widths", ["network", "pruned to", "MACs", *speeds, "accuracy after one epoch"], table)


def lines(rows: Rows, name: str, names: list[str]) -> list[list[Any]]:
    """Returns a network's part of the table."""
    found = []
    for variant in names:
        kept = rows.get([name, variant])
        cells = []
        for kind in ("float", "int8"):
            for batch in BATCHES:
                times = rows.get([name, kind, batch])
                own, whole = times[variant], times[WHOLE]
                cells.append(f"{own:.3g} ms" if variant == WHOLE else f"{own:.3g} ms, {whole / own:.2f}×")
        accuracy = f"{rows.get([name, 'trained', variant])['accuracy']:.2%}" if name == "resnet20" else ""
        found.append([name, variant, f"{kept['ratio']:.2f}× fewer", *cells, accuracy])
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
