"""Deep Compression on MNIST: pruned, shared and entropy-coded, with every byte of the file counted.

python benchmarks/deep_compression.py MNIST.npz [--seeds 0 1 2] [--pruned FOLDER]

Starts from the sparse networks of benchmarks/pruning_mnist.py (LeNet-300-100 and Caffe's LeNet-5), which are made by its recipe
where they aren't there yet. Each layer's weights then share a few values; the values, and the biases, are tuned with the dense
network as teacher; the graph is saved with `compact=True`. Counted is the whole file, which loads without anything else: graph,
positions, codes, codebooks, biases, plan. It stands against the float32 weights of the dense network. What is judged, on the
10,000 test images, once, at the end, is the file as it loads. A run that was killed goes on where it stopped.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import penjing as pj
from _rows import HERE, Rows
from _tables import publish
from penjing.data import Data
from pruning_mnist import RECIPES as PRUNING
from pruning_mnist import SEEDS, TRAINING, error, pruned, sparse_file, trained, unshifted

AIMS = {"lenet300": (64, 1.8), "lenet5": (200, 0.9)}
PUBLISHED = {
    "lenet300": "Han 2016 40× at 1.58 %, Ullrich 2017 64× at 1.94 %",
    "lenet5": "Han 2016 39× at 0.74 %, Ullrich 2017 162× at 0.97 %",
}
RECIPES: dict[str, dict[str, Any]] = {
    "lenet300": {"weights": "codebook:16", "epochs": 6, "lr": 5e-4},
    "lenet5": {"weights": "codebook:16", "epochs": 6, "lr": 5e-4},
}
# What is pruned otherwise than in pruning_mnist.py: the aim is a file, of which positions and codes are the larger part.
PRUNED: dict[str, dict[str, Any]] = {"lenet300": {}, "lenet5": {"fewer": 140, "epochs": 30}}


def main() -> None:
    """Runs what is missing, then publishes."""
    options = _options()
    torch.set_num_threads(1)
    data = pj.data.mnist(options.data)
    rows = Rows("deep_compression" if not options.tries else "deep_compression_tried")
    for name in options.networks:
        for seed in options.seeds or SEEDS[name]:
            rows.once(_key(name, seed), lambda n=name, s=seed: one(n, s, data, options))
    if not options.tries:
        table(rows)


def _key(name: str, seed: int) -> list[Any]:
    return [name, seed, *map(str, (PRUNING[name] | PRUNED[name]).values()), *map(str, RECIPES[name].values())]


def one(name: str, seed: int, data: Data, options: argparse.Namespace) -> dict[str, Any]:
    """Shares, tunes, saves, loads and judges."""
    recipe = PRUNING[name] | PRUNED[name]
    if options.tries:
        recipe = recipe | {"base_epochs": 1, "epochs": 1}
    dense = trained(name, seed, recipe["base_epochs"], data, held=False)
    sparse = _sparse(dense, name, seed, recipe, data, options.pruned)
    start = time.process_time()
    small = shared(sparse, dense, RECIPES[name] | ({"epochs": 1} if options.tries else {}), data, seed)
    file = HERE / "out" / f"deep_compression_{name}_{seed}.penjing"
    small.save(file, compact=True)
    loaded = pj.load(file)
    check_equal(loaded, small, data)
    weights = 4 * sum(tensor.numel() for tensor in dense.parameters() if tensor.dim() > 1)
    return {
        "dense": error(dense, data),
        "pruned": error(sparse, data),
        "error": error(loaded, data),
        "bytes": file.stat().st_size,
        "plain_bytes": weights,
        "smaller": weights / file.stat().st_size,
        "weights": sum(int(tensor.count_nonzero()) for tensor in sparse.parameters() if tensor.dim() > 1),
        "seconds": round(time.process_time() - start),
    }


def _sparse(dense: pj.Graph, name: str, seed: int, recipe: dict[str, Any], data: Data, folder: Path | None) -> pj.Graph:
    """Returns the pruned network; pruned once, and then read from a file."""
    file = sparse_file(name, seed, recipe, folder or HERE / "out")
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        pruned(dense, recipe, seed, data).save(file)
    return pj.load(file)


def shared(sparse: pj.Graph, dense: pj.Graph, recipe: dict[str, Any], data: Data, seed: int) -> pj.Graph:
    """Returns the network whose weights share values, tuned."""
    small = pj.quantize(sparse, weights=recipe["weights"], activations=None, simulate=True)
    plain = replace(data, train=unshifted(data.train), fingerprint=f"{data.fingerprint} unshifted")
    pj.recover(
        small, plain, teacher=dense, epochs=recipe["epochs"], weight_decay=0.0, clip_norm=None, seed=seed, progress=False,
        **TRAINING | {"lr": recipe["lr"]},
    )  # fmt: skip
    return small.eval()


def check_equal(loaded: pj.Graph, saved: pj.Graph, data: Data) -> None:
    """Checks that a file holds exactly what was saved, and computes the same.

    Raises:
        SystemExit: it doesn't.
    """
    before, after = saved.tensors(), loaded.tensors()
    unlike = [name for name in before if name not in after or not torch.equal(before[name], after[name])]
    with torch.no_grad():
        same = all(torch.equal(loaded(inputs), saved(inputs)) for inputs in _first(data))
    if unlike or not same:
        raise SystemExit(f"The file doesn't hold what was saved: {', '.join(unlike) or 'its outputs differ'}.")


def _first(data: Data) -> Iterator[torch.Tensor]:
    for inputs, _ in data.validation or ():
        yield inputs
        return


def table(rows: Rows) -> None:
    """Publishes the networks of which all seeds are finished."""
    lines = []
    for name, (smaller, wrong) in AIMS.items():
        seeds = SEEDS[name]
        if not all(rows.has(_key(name, seed)) for seed in seeds):
            continue
        found = [rows.get(_key(name, seed)) for seed in seeds]
        least, errors = min(row["smaller"] for row in found), [row["error"] for row in found]
        reached = least >= smaller and mean(errors) <= wrong
        lines.append([
            name, f"{found[0]['plain_bytes']:,}", f"{max(row['weights'] for row in found):,}", RECIPES[name]["weights"],
            f"{max(row['bytes'] for row in found):,}", f"{least:.1f}×",
            f"{mean(row['dense'] for row in found):.2f} %", f"{mean(row['pruned'] for row in found):.2f} %",
            f"{mean(errors):.2f} % ({', '.join(f'{value:.2f}' for value in errors)})",
            f"≤ {wrong} % at ≥ {smaller}×", "yes" if reached else "no", PUBLISHED[name],
        ])  # fmt: skip
    columns = [
        "network", "float32 weights, bytes", "weights left", "weights", "whole file, bytes", "smaller", "error, dense",
        "error, pruned", "error of the file, mean of all seeds", "aim", "reached", "published",
    ]  # fmt: skip
    publish("deep_compression", columns, lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", help="by default those of the table")
    parser.add_argument("--networks", nargs="+", choices=list(AIMS), default=list(AIMS))
    parser.add_argument(
        "--pruned", type=Path, metavar="FOLDER", help="where pruned networks are; benchmarks/out by default"
    )
    parser.add_argument(
        "--tries", action="store_true", help="one epoch of everything, to see that it works; not published"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
