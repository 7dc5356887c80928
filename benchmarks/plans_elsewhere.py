"""Whether a plan made for one runtime is worse on another than the plan that is made for it.

python benchmarks/plans_elsewhere.py run resnet20 RESNET20.safetensors CIFAR10.zip --latency 0.2x [--targets NAME …] [--epochs 2]
python benchmarks/plans_elsewhere.py table      # publishes what is finished in docs/results.md

For each runtime a network is planned under a share of its latency there, trained with the original as teacher, and rounded. The
result is then lowered for each other runtime, as `penjing export` does, and measured beside the original's file. For the latency
that it reaches there a plan is made for that runtime itself, with the same training. Two networks of one latency remain, and the
accuracy tells which runtime's plan is better there. The accuracy is that of the file, run by its runtime on all test images.
Finished rows are not run again.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import penjing as pj
from _pruning import HERE, Rows, network
from _tables import publish
from penjing.distillation import Stored
from penjing.evidence.memory import remembering
from plan import accuracy

TECHNIQUES: dict[str, dict[str, Any]] = {"prune": {"criterion": "taylor"}, "quantize": {}}
SECONDS = 15.0  # of timing a file
FOLDER = HERE / "out" / "plans_elsewhere"


@dataclass(frozen=True)
class Case:
    """What is made small, and how it is trained."""

    name: str
    base: pj.Graph
    data: pj.Data
    epochs: int


def main() -> None:
    """Runs what is missing, or publishes."""
    asked = _asked()
    rows = Rows("plans_elsewhere")
    if asked.what == "table":
        table(rows)
        return
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    case = Case(
        asked.network, network(asked.network, asked.weights), remembering(pj.data.cifar10(asked.data)), asked.epochs
    )
    for made_for in asked.targets:
        at_home = rows.once(
            [case.name, asked.latency, made_for], lambda made_for=made_for: made(case, made_for, asked.latency)
        )
        for runtime in asked.targets:
            if runtime == made_for:
                continue
            key = [case.name, asked.latency, made_for, runtime]
            away = rows.once(
                [*key, "elsewhere"],
                lambda at_home=at_home, runtime=runtime: measured(case, pj.load(FOLDER / at_home["graph"]), runtime),
            )
            rows.once([*key, "own"], lambda away=away, runtime=runtime: made(case, runtime, f"{away['latency']:.4f}x"))


def made(case: Case, target: str, latency: str) -> dict[str, Any]:
    """Plans for a runtime, trains and rounds; returns what is measured there, and the file of the graph."""
    plan = pj.plan(case.base, case.data, budget=pj.Budget(latency=latency), techniques=TECHNIQUES, target=target)
    kinds = [option.place.kind for option in plan if option.technique != "quantize"]
    small = pj.apply(case.base, plan, case.data) if kinds else case.base
    name = f"{case.name}-{target}-{latency}"
    pj.recover(
        small, case.data, teacher=Stored(case.base, FOLDER / f"teacher-{case.name}.safetensors"), epochs=case.epochs, seed=0,
        signal="soft_labels", precision="bfloat16", channels_last=True, progress=False, checkpoint=FOLDER / f"{name}.pt",
    )  # fmt: skip
    rounded = pj.apply(small, plan, case.data, stage="numbers")
    rounded.save(FOLDER / f"{name}.penjing")
    cost = rounded.cost()
    told = {
        "branches": kinds.count("branch"),
        "groups": kinds.count("group"),
        "macs": cost.macs,
        "graph": f"{name}.penjing",
    }
    return {**told, **measured(case, rounded, target)}


def measured(case: Case, small: pj.Graph, target: str) -> dict[str, Any]:
    """Returns a network's latency on a runtime over that of the original, and its accuracy there."""
    suffix = pj.targets.find_target(target).suffix
    graphs = {"original": case.base, "small": small}
    files = {name: pj.lower(graph, target, FOLDER / f"{name}-{target}{suffix}") for name, graph in graphs.items()}
    found = pj.targets.measure_together(files, seconds=SECONDS, runs=5000, memory=False)
    faster = pj.targets.speedup(found["original"].latency_ms, found["small"].latency_ms)
    return {
        "latency": 1 / faster.value,
        "interval": [1 / faster.high, 1 / faster.low],
        "calm": faster.calm,
        "accuracy": accuracy(files["small"], case.data),
    }


def table(rows: Rows) -> None:
    """Publishes, for each pair of runtimes, the plan made for the one and those made for the other."""
    found = []
    for row in rows.rows.values():
        if row["key"][-1] != "own":
            continue
        name, latency, made_for, runtime, _ = row["key"]
        away, home = rows.get([*row["key"][:-1], "elsewhere"]), rows.get([name, latency, runtime])
        plans = ((made_for, latency, away), (runtime, latency, home), (runtime, f"{away['latency']:.3f}x", row))
        for planned_for, asked, measured_here in plans:
            reached = f"{1 / measured_here['latency']:.2f}×" + ("" if measured_here["calm"] else " (disturbed)")
            found.append([name, runtime, planned_for, asked, reached, f"{measured_here['accuracy']:.2%}"])
    columns = ["network", "measured on", "planned for", "latency asked there", "faster here", "accuracy"]
    publish("plans_elsewhere", columns, list(dict.fromkeys(map(tuple, found))))  # type: ignore[arg-type]


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("network", nargs="?", help="resnet20 or resnet56")
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--latency", default="0.2x", help="share of the original's latency")
    parser.add_argument("--targets", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--epochs", type=int, default=2)
    asked = parser.parse_args()
    if asked.what == "run" and asked.data is None:
        parser.error("give the network, its weights and the data")
    return asked


if __name__ == "__main__":
    main()
