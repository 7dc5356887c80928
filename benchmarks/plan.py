"""What planning place by place brings: accuracy and measured speed by solver, with the same training.

python benchmarks/plan.py resnet20 RESNET20.safetensors CIFAR10.zip --latency 0.33x [--epochs 2]     # each solver, one budget
python benchmarks/plan.py table                                                                      # publishes what is finished

Each solver is given the same budget. What it plans is pruned, trained with the original as teacher, quantised and lowered; the
accuracy is that of the quantised network on all test images, the speed that of its file beside the original's, in turns, on one
thread. Finished rows are not run again.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import penjing as pj
from _pruning import Rows, judge, network
from _tables import publish
from penjing.evidence.memory import remembering

SOLVERS = ("milp", "widest_that_fits")
TECHNIQUES = {"prune": {"criterion": "taylor"}, "quantize": {}}
SECONDS = 20.0  # of timing the files at the end


def main() -> None:
    """Runs what is missing, or publishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", help="a network of the zoo, or 'table'")
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--latency", default="0.33x")
    parser.add_argument("--epochs", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("plan")
    if asked.what == "table":
        table(rows)
        return
    base = network(asked.what, asked.weights)
    data = remembering(pj.data.cifar10(asked.data, seed=0))
    rows.once([asked.what], lambda: judge(base, data))
    for solver in SOLVERS:
        rows.once(
            [asked.what, asked.latency, asked.epochs, solver],
            lambda solver=solver: planned(base, data, solver, asked.latency, asked.epochs),
        )


def planned(base: pj.Graph, data: pj.Data, solver: str, latency: str, epochs: int) -> dict[str, Any]:
    """Returns the accuracy and the speed of what a solver plans, once it is trained, and the seconds of planning."""
    start = time.perf_counter()
    plan = pj.plan(base, data, budget=pj.Budget(latency=latency), techniques=TECHNIQUES, solver=solver)
    seconds = time.perf_counter() - start
    small = pj.apply(base, plan, data)
    pj.recover(
        small, data, teacher=base, epochs=epochs, seed=0, precision="bfloat16", channels_last=True, progress=False,
        report=lambda told: print(solver, told, flush=True),
    )  # fmt: skip
    quantized = pj.quantize(small, data)
    with tempfile.TemporaryDirectory() as folder:
        files = {
            name: pj.lower(graph, path=Path(folder) / f"{name}.onnx")
            for name, graph in (("original", base), ("small", quantized))
        }
        found = pj.targets.measure_together(files, seconds=SECONDS, runs=5000, memory=False)
    before, after = (found[name].latency_ms.median for name in files)
    return {
        "accuracy": judge(quantized, data)["accuracy"], "speed": before / after, "seconds": seconds,
        "macs": small.cost().macs / base.cost().macs, "params": small.cost().params / base.cost().params,
        "branches": sum(option.place.kind == "branch" for option in plan),
        "groups": sum(option.place.kind == "group" for option in plan),
    }  # fmt: skip


def table(rows: Rows) -> None:
    """Publishes what is finished."""
    made = []
    for key in sorted((row["key"] for row in rows.rows.values()), key=str):
        if len(key) == 4:
            name, latency, epochs, solver = key
            row, whole = rows.get(key), rows.get([name])["accuracy"]
            made.append([
                name, latency, solver, f"{row['macs']:.0%}", f"{row['params']:.0%}", f"{row['speed']:.2f}×",
                f"{row['accuracy']:.2%} ({100 * (row['accuracy'] - whole):+.2f})", epochs,
            ])  # fmt: skip
    publish(
        "plan", ["network", "budget", "solver", "MACs left", "parameters left", "faster", "accuracy", "epochs"], made
    )


if __name__ == "__main__":
    main()
