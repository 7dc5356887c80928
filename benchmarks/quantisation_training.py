"""ResNet-20 on CIFAR-10 with weights of two bits, of three values and of two, trained with its roundings in place.

python benchmarks/quantisation_training.py WEIGHTS.safetensors CIFAR10.zip
python benchmarks/quantisation_training.py WEIGHTS.safetensors CIFAR10.zip --grids ternary --method ste

Activations have 8 bits, and so have the weights of the first and the last layer, as is usual in the literature; all other
weights have the grid. The float network is where training begins and the teacher. "2 bits" are four integers with a zero
point ("uint2"); Penjing's "int2" are symmetric, so three values. A run that was killed goes on where it stopped when it is
started again.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import penjing as pj
from _pruning import HERE, Rows, judge, network
from _tables import publish
from penjing.quantization import QuantizedTraining, quantize

GRIDS = {"uint2": ("2 bits", 2.0), "ternary": ("−1, 0, 1", 3.0), "binary": ("−1, 1", 5.0)}  # with the points allowed
ENDS = {"conv1": "int8", "linear": "int8"}
COLUMNS = [
    "weights", "method", "epochs", "accuracy, rounded only", "accuracy, trained", "below float, points", "allowed",
    "compact file, kB", "processor seconds",
]  # fmt: skip


def main() -> None:
    """Runs what is missing, then publishes."""
    options = _options()
    torch.set_num_threads(options.threads)
    rows = Rows("quantisation_training")
    data = pj.data.cifar10(options.data)
    base = network("resnet20", options.weights)
    first = rows.once(["float"], lambda: {**judge(base, data), "bytes": _bytes(base, "float")})
    for grid in options.grids:
        rows.once(_key(grid, options), lambda grid=grid: _one(grid, base, data, options))
    finished = [(grid, rows.get(_key(grid, options))) for grid in GRIDS if rows.has(_key(grid, options))]
    table: list[list[Any]] = [
        ["float32", "", "", "", f"{first['accuracy']:.2%}", "", "", f"{first['bytes'] / 1e3:.0f}", ""]
    ]
    for grid, row in finished:
        words, allowed = GRIDS[grid]
        table.append([
            f"{grid} ({words})", options.method, options.epochs, f"{row['rounded']:.2%}", f"{row['accuracy']:.2%}",
            f"{100 * (first['accuracy'] - row['accuracy']):.2f}", f"{allowed:.0f}", f"{row['bytes'] / 1e3:.0f}",
            row["seconds"],
        ])  # fmt: skip
    publish("quantisation_training", COLUMNS, table, {"lr": options.lr, "seed": options.seed})


def _key(grid: str, options: argparse.Namespace) -> list[Any]:
    return [grid, options.method, list(options.stages), options.epochs, options.lr, options.seed]


def _one(grid: str, base: pj.Graph, data: pj.Data, options: argparse.Namespace) -> dict[str, Any]:
    """Rounds, trains and judges."""
    key = _key(grid, options)
    name = "_".join(map(str, key)).replace(" ", "")
    checkpoint = HERE / "out" / f"quantisation_training_{name}.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    choices: dict[str, Any] = {"weights": grid, "per_layer": ENDS}
    rounded = judge(quantize(base, data, **choices), data)
    print(key, "rounded only", rounded, flush=True)
    start = time.process_time()
    training = QuantizedTraining(base, data, method=options.method, stages=options.stages, seed=options.seed, **choices)
    pj.recover(
        training.graph, data, teacher=base, epochs=options.epochs, lr=options.lr, seed=options.seed, channels_last=True,
        checkpoint=checkpoint, callbacks=[training], penalty=training.penalty, progress=False,
        report=lambda told: print(key, told, flush=True),
    )  # fmt: skip
    small = training.finish()
    small.save(HERE / "out" / f"quantisation_training_{name}.penjing")
    seconds = round(time.process_time() - start)  # of the last start only, where there were several
    return {**judge(small, data), "rounded": rounded["accuracy"], "bytes": _bytes(small, name), "seconds": seconds}


def _bytes(graph: pj.Graph, name: str) -> int:
    path = HERE / "out" / f"quantisation_training_{name}_compact.penjing"
    path.parent.mkdir(exist_ok=True)
    graph.rounded().save(path, compact=True)
    return path.stat().st_size


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="of resnet20, safetensors")
    parser.add_argument("data", type=Path, help="CIFAR-10")
    parser.add_argument("--grids", nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--method", default="lsq", help="a name in penjing list methods")
    parser.add_argument("--stages", nargs="*", type=int, default=[], help="bits before the last, falling: 8 4")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
