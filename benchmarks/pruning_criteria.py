"""All criteria on ResNet-20 for CIFAR-10 at half of its filters, under one budget: before and after a little training.

python benchmarks/pruning_criteria.py WEIGHTS.safetensors CIFAR10.zip IMAGES [CRITERION…]

The same share of every group goes, so that the networks have the same sizes and only the choice of the units differs.
Accuracies are of all 10,000 test images: of the pruned network as it is; with its norms' statistics taken anew from
training images (Li et al., EagleEye, 2020), which is what training would do first; and after one pass of `recover` over
so many of the training images (50000 are an epoch), from the labels alone. `random` is the mean of three seeds. A run that
was killed goes on where it stopped.
"""

import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import penjing as pj
from _pruning import Rows, judge, network, recalibrated, some
from _tables import publish
from penjing.pruning.criteria import criteria

AMOUNT = 0.5
SEEDS = (0, 1, 2)
LR = 0.03
SCORED = 16  # batches of 128


def one(base: pj.Graph, data: pj.Data, criterion: str, seed: int, images: int) -> dict[str, Any]:
    """Returns what one criterion's choice is worth."""
    start, used = time.perf_counter(), time.process_time()
    small = pj.prune(base, AMOUNT, criterion=criterion, data=data, batches=SCORED, seed=seed)
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    found = {"seconds": seconds, "processor_seconds": processor, "macs": small.cost().macs}
    found |= {"at once": judge(small, data), "norms anew": judge(recalibrated(small, data), data)}
    pj.recover(
        small, some(data, images), epochs=1, lr=LR, precision="bfloat16", channels_last=True, seed=0, progress=False
    )
    return {**found, "trained": judge(small, data)}


def mean(found: list[dict[str, Any]], stage: str, what: str) -> float:
    """Returns the mean over seeds."""
    return statistics.mean(row[stage][what] for row in found)


def main(weights: str, path: str, images: int, *asked: str) -> None:
    """Runs what is missing, then publishes."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="grad and param do not obey")
    base, data, rows = network("resnet20", Path(weights)), pj.data.cifar10(path), Rows("pruning_criteria")
    whole = rows.once(["unpruned"], lambda: {"at once": judge(base, data), "macs": base.cost().macs})
    found: dict[str, list[dict[str, Any]]] = {}
    for name in asked or sorted(criteria, key=lambda name: (name != "random", name)):
        for seed in SEEDS if name == "random" else SEEDS[:1]:
            row = rows.once([name, seed, images], lambda name=name, seed=seed: one(base, data, name, seed, images))
            found.setdefault(name, []).append(row)
    table = []
    for name, runs in sorted(found.items(), key=lambda item: -mean(item[1], "trained", "accuracy")):
        cells = [
            f"{mean(runs, stage, 'accuracy'):.2%}, {mean(runs, stage, 'loss'):.2f}"
            for stage in ("at once", "norms anew")
        ]
        lost = 100 * (mean(runs, "trained", "accuracy") - whole["at once"]["accuracy"])
        seconds = statistics.mean(row["processor_seconds"] for row in runs)
        needs = ", ".join(sorted(criteria[name].needs)) or "nothing"
        table.append(
            [name, *cells, f"{mean(runs, 'trained', 'accuracy'):.2%}", f"{lost:+.2f}", f"{seconds:.1f}", needs]
        )
    publish(
        "pruning_criteria",
        ["criterion", "at once: accuracy, loss", "norms anew: accuracy, loss", f"after {images:,} images", "points to unpruned",
         "processor seconds to prune", "needs"],
        table,
        {"unpruned": whole, "lr": LR, "amount": AMOUNT, "batches": SCORED},
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:3], int(sys.argv[3]), *sys.argv[4:])
