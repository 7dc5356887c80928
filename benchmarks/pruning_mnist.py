"""The two networks on which pruning was first shown, with as few weights as they bear.

python benchmarks/pruning_mnist.py MNIST.npz [--seeds 0 1 2]

LeNet-300-100 and Caffe's LeNet-5 are trained, then pruned to single weights while they train on with the trained network as
teacher. Counted are weights; biases all stay. All seeds are judged on the 10,000 test images, once, at the end; the recipe was
chosen with 5,000 of the training images held out (`--choose`). A run that was killed goes on where it stopped when it is
started again.
"""

import argparse
import copy
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import penjing as pj
from _pruning import HERE, Rows, held_out
from _tables import publish
from penjing.pruning import Gradual
from penjing.tasks import evaluate

HELD = 5000
TRAINING = {"optimizer": "adamw", "lr": 2e-3, "precision": "float32", "channels_last": False}
SOFT = {"distill_weight": 0.5, "temperature": 2}
RECIPES: dict[str, dict[str, Any]] = {
    "lenet300": {
        "fewer": 60,
        "error": 1.8,
        "base_epochs": 20,
        "epochs": 60,
        "allocation": "lamp",
        "shift": False,
        **SOFT,
    },
    "lenet5": {
        "fewer": 280,
        "error": 0.9,
        "base_epochs": 12,
        "epochs": 100,
        "allocation": "lamp",
        "shift": False,
        "keep": [8, 16, 80],
        "narrow_epochs": 8,
    },
}
SEEDS = {"lenet300": [0, 1, 2], "lenet5": [0]}  # as many as there is patience for
PUBLISHED = {
    "lenet300": "Han 2015 1.59 % at 12×, Guo 2016 1.99 % at 56×, Molchanov 2017 1.92 % at 68×",
    "lenet5": "Han 2015 0.77 % at 12×, Guo 2016 0.91 % at 108×, Molchanov 2017 0.75 % at 280×",
}
MARGIN = 1.003  # so that what is not a whole weight doesn't fall short


def main() -> None:
    """Runs what is missing, then publishes."""
    options = _options()
    torch.set_num_threads(1)
    data = pj.data.mnist(options.data)
    if options.choose:
        data = held_out(data, HELD)
    rows = Rows("pruning_mnist_choosing" if options.choose else "pruning_mnist")
    changes = dict(_change(text) for text in options.set)
    for name in options.networks:
        for seed in options.seeds or SEEDS[name]:
            recipe = {**RECIPES[name], **changes}
            rows.once(
                [name, seed, *map(str, recipe.values())], lambda n=name, s=seed, r=recipe: one(n, s, r, data, options)
            )
    if not (options.choose or changes):
        table(rows)


def _change(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except ValueError:  # a name
        return key, value


def one(name: str, seed: int, recipe: dict[str, Any], data: pj.Data, options: argparse.Namespace) -> dict[str, Any]:
    """Trains, prunes and judges."""
    start = time.process_time()
    dense = trained(name, seed, recipe["base_epochs"], data, held=options.choose)
    sparse = pruned(dense, recipe, seed, data)
    if not options.choose:
        sparse.save(sparse_file(name, seed, recipe))
    left = {weight: int(tensor.count_nonzero()) for weight, tensor in sparse.named_parameters()}
    weights = [weight for weight, tensor in sparse.named_parameters() if tensor.dim() > 1]
    return {
        "dense": error(dense, data),
        "error": error(sparse, data),
        "fewer": weights_of(dense) / sum(left[weight] for weight in weights),
        "weights": sum(left[weight] for weight in weights),
        "left": left,
        "seconds": round(time.process_time() - start),
    }


def trained(name: str, seed: int, epochs: int, data: pj.Data, *, held: bool) -> pj.Graph:
    """Returns the dense network; trained once, and then read from a file."""
    file = HERE / "out" / f"pruning_mnist_{name}_{seed}_{epochs}{'_held' if held else ''}.penjing"
    if not file.exists():
        torch.manual_seed(seed)
        graph = pj.capture(pj.zoo.build(name), pj.zoo.example_input(name))
        pj.recover(graph, data, epochs=epochs, seed=seed, progress=False, **TRAINING)
        file.parent.mkdir(exist_ok=True)
        graph.save(file)
    return pj.load(file)


def sparse_file(name: str, seed: int, recipe: dict[str, Any], folder: Path = HERE / "out") -> Path:
    """Returns where the sparse network is kept."""
    return folder / f"pruning_mnist_{name}_{seed}_{recipe['fewer']}x_{recipe['epochs']}.penjing"


def pruned(dense: pj.Graph, recipe: dict[str, Any], seed: int, data: pj.Data) -> pj.Graph:
    """Returns the sparse network."""
    if not recipe["shift"]:
        data = replace(data, train=unshifted(data.train), fingerprint=f"{data.fingerprint} unshifted")
    start = narrowed(dense, recipe, seed, data) if recipe.get("keep") else dense
    share = weights_of(start) / weights_of(dense)
    pruning = Gradual(
        start, 1 - 1 / (recipe["fewer"] * MARGIN * share), schedule=recipe.get("schedule", "cubic:0.7"),
        criterion=recipe.get("criterion", "l2"), granularity="element", allocation=recipe["allocation"], data=data, seed=seed,
    )  # fmt: skip
    for training in range(pruning.trainings):
        pruning.begin(training)
        pj.recover(
            pruning.graph, data, teacher=dense, epochs=recipe["epochs"], weight_decay=0.0, clip_norm=None, seed=seed,
            temperature=recipe.get("temperature", 4.0), distill_weight=recipe.get("distill_weight", 0.9),
            callbacks=[pruning], penalty=pruning.penalty, progress=False, **TRAINING | {"lr": recipe.get("lr", TRAINING["lr"])},
        )  # fmt: skip
    return pruning.finish()


def narrowed(dense: pj.Graph, recipe: dict[str, Any], seed: int, data: pj.Data) -> pj.Graph:
    """Returns the network with fewer channels: what few weights would be spread over, and each epoch is faster."""
    groups = pj.channels(dense).groups
    shares = {group.name: 1 - left / group.units for group, left in zip(groups, recipe["keep"], strict=True)}
    small = pj.prune(dense, shares, allocation="plan", criterion="l2", data=data)
    return pj.recover(
        small, data, teacher=dense, epochs=recipe["narrow_epochs"], weight_decay=0.0, clip_norm=None, seed=seed,
        progress=False, **TRAINING,
    )  # fmt: skip


def weights_of(graph: pj.Graph) -> int:
    """Returns the number of weights; biases don't count."""
    return sum(tensor.numel() for _, tensor in graph.named_parameters() if tensor.dim() > 1)


def unshifted(loader: Any) -> Any:
    """Returns the same batches with the digits where they are: a few weights can't learn all places too."""
    plain = copy.copy(loader)
    plain._augment = None
    return plain


def error(graph: pj.Graph, data: pj.Data) -> float:
    """Returns the share of wrong answers, in per cent."""
    assert data.validation is not None
    return round(
        100 * (1 - float(evaluate(graph, data.validation, data.task) or 0.0)), 3
    )  # of 10,000, in single precision


def table(rows: Rows) -> None:
    """Publishes the mean over seeds."""
    lines = []
    for name, recipe in RECIPES.items():
        seeds = SEEDS[name]
        if not all(rows.has([name, seed, *map(str, recipe.values())]) for seed in seeds):
            continue
        found = [rows.get([name, seed, *map(str, recipe.values())]) for seed in seeds]
        wrong = mean(row["error"] for row in found)
        fewer = min(row["fewer"] for row in found)
        each = ", ".join(f"{row['error']:.2f}" for row in found)
        lines.append([
            name, f"{mean(row['dense'] for row in found):.2f} %", f"{found[0]['weights']:,}", f"{fewer:.1f}×",
            f"{wrong:.2f} % ({each})",
            f"≤ {recipe['error']} % at ≥ {recipe['fewer']}×", "yes" if round(wrong, 3) <= recipe["error"] else "no",
            PUBLISHED[name], f"{mean(row['seconds'] for row in found) / 60:.0f}",
        ])  # fmt: skip
    columns = [
        "network", "error, dense", "weights left", "fewer", "error, mean of all seeds", "aim",
        "reached", "published", "processor minutes",
    ]  # fmt: skip
    publish("pruning_mnist", columns, lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", help="by default those of the table")
    parser.add_argument("--networks", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--choose", action="store_true", help="hold training images out, and judge on them")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="another recipe, to try it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
