"""How well the latency of random plans is predicted from a table of kernels' latencies, beside counting multiplications.

    python benchmarks/latency_prediction.py FOLDER             # runs what is missing, then publishes
    python benchmarks/latency_prediction.py FOLDER --table     # only publishes what is finished
    python benchmarks/latency_prediction.py FOLDER --plans 10 --batch 32
    python benchmarks/latency_prediction.py FOLDER --target openvino

A plan removes blocks, keeps a random multiple of 8 channels in each group, and computes in float32 or in int8. Its lowered
file is measured in turns with the original's files, on one thread. The processor's time of a call counts, which other
processes don't add to as they do to the time on the wall, and of all calls the tenth percentile, since other processes empty
caches. Each network's table is measured first; the folder keeps it, and the plans' files. A run that was killed goes on where
it stopped.
"""

import argparse
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import penjing as pj
from _rows import Rows
from _tables import publish
from penjing import targets
from penjing.graph import branches, remove_branches
from penjing.planning import Deployment
from penjing.planning.latency import (
    FLOAT32,
    INT8,
    Kernel,
    LatencyTable,
    Predictor,
    Whole,
    activations_of,
    corrected,
    grid,
    kernels_of,
)
from penjing.planning.latency.predict import fastest

NAME = "latency_prediction"
NETWORKS = ("resnet56", "mobilenet_v2")
TARGETS = ("onnxruntime", "openvino")
TARGET = TARGETS[0]
STEP = 8  # channels
ROUNDS = 40  # in which each file is called for BURST_SECONDS
BURST_SECONDS = 0.006
QUIET = 10  # percentile of the calls' times that stands for a call that nothing disturbs
PROFILES = 12  # of each of the whole models that the correction is fitted to
SMALLER = (
    1000,
    1001,
)  # seeds of the plans whose float and int8 files the correction is fitted to, beside the originals


def random_plan(base: pj.Graph, seed: int) -> pj.Graph:
    """Returns the graph without some of its blocks, and with a random multiple of 8 channels in each group."""
    draw = random.Random(seed)
    share = draw.uniform(0, 0.7)
    gone = [branch for branch in branches(base) if draw.random() < share]
    small = remove_branches(base, gone) if gone else base
    least, shares = draw.uniform(0.2, 0.9), {}
    for group in pj.channels(small).groups:
        if group.units >= 2 * STEP:
            kept = STEP * draw.randint(max(1, round(group.units * least / STEP)), group.units // STEP)
            shares[group.name] = 1 - kept / group.units
    return pj.prune(small, shares, allocation="plan")


def lowered(graph: pj.Graph, numbers: str, shape: tuple[int, ...], path: Path, target: str) -> targets.Artifact:
    """Returns the file of a graph in float32 or int8, which is made if it isn't there."""
    if path.exists():
        return targets.open_artifact(path, target)
    small = pj.quantize(graph, [torch.randn(2, *shape)], target=target) if numbers == INT8 else graph
    return targets.lower(small, target, path)


def in_turns(files: Mapping[str, targets.Artifact], batch: int, rounds: int = ROUNDS) -> dict[str, float]:
    """Returns the milliseconds of the processor that a call of each file takes while nothing disturbs it."""
    sessions = {name: targets.find_target(file.target).session(file, 1) for name, file in files.items()}
    inputs = {
        spec.name: np.random.default_rng(0).standard_normal((batch, *spec.example[1:]), "float32")
        for spec in next(iter(files.values())).inputs
    }
    times: dict[str, list[float]] = {name: [] for name in files}
    order = list(files)
    for _ in range(rounds):
        for name in order:
            sessions[name].run(inputs)
            end = time.thread_time() + BURST_SECONDS
            while not times[name] or time.thread_time() < end:
                start = time.thread_time()
                sessions[name].run(inputs)
                times[name].append((time.thread_time() - start) * 1e3)
        order.reverse()
    return {name: float(np.percentile(values, QUIET)) for name, values in times.items()}


class Subject:
    """A network, its table, and its originals' files."""

    def __init__(self, name: str, folder: Path, batch: int, target: str) -> None:
        self.name, self.folder, self.batch, self.target = name, folder / target, batch, target
        self.folder.mkdir(parents=True, exist_ok=True)
        self.shape = tuple(pj.zoo.example_input(name).shape[1:])
        self.base = pj.capture(pj.zoo.build(name).eval(), pj.zoo.example_input(name))
        self.table = LatencyTable(self.folder / f"{name}.sqlite", Deployment(target, batch=batch), say=print)
        self.macs = self.base.cost().macs

    def file(self, graph: pj.Graph, numbers: str, kind: str) -> targets.Artifact:
        """Returns a graph's file."""
        file = self.folder / f"{self.name}_{kind}_{numbers}{targets.find_target(self.target).suffix}"
        return lowered(graph, numbers, self.shape, file, self.target)

    def originals(self) -> dict[str, targets.Artifact]:
        """The files of the network as it is."""
        return {numbers: self.file(self.base, numbers, "original") for numbers in (FLOAT32, INT8)}

    def kernels(self, graph: pj.Graph, numbers: str) -> dict[str, Kernel]:
        """Returns a plan's kernels, as a planner knows them that quantises nothing."""
        return {node: kernel.in_numbers(numbers) for node, kernel in kernels_of(graph, self.batch).items()}

    def measure_table(self) -> dict[str, Any]:
        """Measures what the table lacks."""
        wanted = grid(kernels_of(self.base, self.batch).values(), STEP)
        start = time.monotonic()
        refused = self.table.measure(wanted, say=lambda line: print(line, flush=True))
        return {"kernels": len(wanted), "refused": len(refused), "seconds": time.monotonic() - start}

    def predictor(self) -> Predictor:
        """Returns the predictor, corrected by the originals and by two smaller networks, in both kinds of numbers."""
        graphs = {"original": self.base} | {str(seed): random_plan(self.base, seed) for seed in SMALLER}
        files = {
            (kind, numbers): self.file(graph, numbers, kind)
            for kind, graph in graphs.items()
            for numbers in (FLOAT32, INT8)
        }
        times = in_turns({" ".join(key): file for key, file in files.items()}, self.batch, 2 * ROUNDS)
        wholes = []
        for (kind, numbers), file in files.items():
            executed = fastest([targets.profile(file, batch=self.batch) for _ in range(PROFILES)])
            kernels, us = self.kernels(graphs[kind], numbers), times[f"{kind} {numbers}"] * 1e3
            wholes.append(Whole(numbers, kernels, executed, us, activations_of(graphs[kind])))
        return Predictor(self.table, corrected(self.table, wholes))

    def run_plan(self, predictor: Predictor, seed: int) -> dict[str, Any]:
        """Measures one plan beside the originals, and predicts it."""
        numbers, graph = (FLOAT32, INT8)[seed % 2], random_plan(self.base, seed)
        times = in_turns({**self.originals(), "plan": self.file(graph, numbers, f"plan{seed}")}, self.batch)
        whole = predictor.ms(self.kernels(self.base, numbers), numbers)
        ms = predictor.ms(self.kernels(graph, numbers), numbers)
        return {
            "numbers": numbers, "measured": times, "predicted": ms, "predicted_original": whole,
            "macs": graph.cost().macs / self.macs,
        }  # fmt: skip


def named(network: str, target: str) -> str:
    """Returns the name by which rows know a network on a target."""
    return network if target == TARGET else f"{network} on {target}"


def errors(rows: list[dict[str, Any]], by_macs: bool) -> list[float]:
    """Returns the relative errors of predicted latencies, relative to the original's in the same numbers."""
    found = []
    for row in rows:
        measured = row["measured"]["plan"] / row["measured"][row["numbers"]]
        share = row["macs"] if by_macs else row["predicted"] / row["predicted_original"]
        found.append(abs(share / measured - 1))
    return found


def line(rows: Rows, name: str, batch: int, found: list[dict[str, Any]]) -> list[str]:
    """Returns a network's line of the table."""
    built = rows.get([name, batch, "table"])
    network, _, target = name.partition(" on ")
    ours, macs = errors(found, False), errors(found, True)
    cells = [f"{np.median(v):.1%}, {np.percentile(v, 90):.1%}" for v in (ours, macs)]
    kinds = [
        f"{np.median(errors(part, False)):.1%}"
        for numbers in (FLOAT32, INT8)
        if (part := [row for row in found if row["numbers"] == numbers])
    ]
    return [
        network, target or TARGET, str(batch), str(len(found)),
        f"{built['kernels']} kernels, {built['seconds'] / 60:.1f} min", cells[0],
        ", ".join(kinds), cells[1],
    ]  # fmt: skip


COLUMNS = [
    "network", "target", "batch", "plans", "table", "error of the prediction: median, 90th percentile",
    "its median: float32, int8", "error of counting MACs: median, 90th percentile",
]  # fmt: skip


def main() -> None:
    """Runs what is missing, then publishes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="keeps the tables and the plans' files")
    parser.add_argument("--plans", type=int, default=60, help="plans per network")
    parser.add_argument("--batch", type=int, default=1, help="samples per call")
    parser.add_argument("--only", help="this network alone; publishes nothing")
    parser.add_argument("--target", default=TARGET, help="the runtime")
    parser.add_argument("--table", action="store_true", help="publish what is finished")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(NAME)
    for name in () if options.table else NETWORKS:
        if options.only in (None, name):
            subject = Subject(name, options.folder, options.batch, options.target)
            key = named(name, options.target)
            rows.once([key, options.batch, "table"], subject.measure_table)
            predictor = None
            for seed in range(options.plans):
                if not rows.has([key, options.batch, seed]):
                    predictor = predictor or subject.predictor()
                    known = predictor
                    rows.once([key, options.batch, seed], lambda seed=seed, p=known, s=subject: s.run_plan(p, seed))
    if options.only is None:
        table = []
        for batch in (1, 32):
            for name in (named(network, target) for target in TARGETS for network in NETWORKS):
                found = [rows.get(key) for seed in range(60) if rows.has(key := [name, batch, seed])]
                if found:
                    table.append(line(rows, name, batch, found))
        publish(NAME, COLUMNS, table)


if __name__ == "__main__":
    main()
