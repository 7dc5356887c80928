"""ResNet-56 with fewer filters, recovered in a few epochs by several recipes, beside Torch-Pruning with its own best."""

import argparse
import statistics
from dataclasses import dataclass, field
from typing import Any

import penjing as pj
from _pruning import HERE, Rows, held_out, judge, network, recalibrated
from _tables import publish
from penjing.distillation import Stored, signals
from pruning_resnet56 import by_penjing, by_torch_pruning, cost

HELD = 2000  # training images that recipes are chosen by
SEEDS = (0, 1)
HALF = "half of each layer's filters"
CASES = {"2.1": 3, "2.55": 3, HALF: 2}  # how much smaller, and epochs of recovery
BEFORE = {"2.1": 89.24, "2.55": 88.82}  # accuracy in percent that the recipe "soft labels, 0.9" reached with one seed
AIM = 0.5  # points before that
BY = {"penjing": by_penjing, "torch-pruning": by_torch_pruning}
PRUNING = {"criterion": "taylor", "allocation": "per MAC", "refit": True, "most": 1.0}


@dataclass(frozen=True)
class Recipe:
    """How a pruned network is trained.

    Attributes:
        taught: whether the unpruned network is its teacher.
        how: arguments of `recover`.
    """

    taught: bool
    how: dict[str, Any] = field(default_factory=dict)


SOFT = {"signal": "soft_labels", "balance": "fixed"}
RECIPES = {
    "plain": Recipe(False, {"lr": 0.03}),
    "soft labels, 0.9": Recipe(True, {"lr": 0.03, **SOFT}),
    "soft labels alone": Recipe(True, {"lr": 0.03, **SOFT, "distill_weight": 1.0}),
    "soft labels alone, T 2": Recipe(True, {"lr": 0.03, **SOFT, "distill_weight": 1.0, "temperature": 2.0}),
    "soft labels alone, mixup": Recipe(True, {"lr": 0.03, **SOFT, "distill_weight": 1.0, "augment": "mixup:1"}),
    "soft labels alone, cutmix": Recipe(True, {"lr": 0.03, **SOFT, "distill_weight": 1.0, "augment": "cutmix:1"}),
    "blocks": Recipe(True, {"lr": 0.03, "signal": "blocks", "balance": "auto"}),
    "attention": Recipe(True, {"lr": 0.03, "signal": "attention", "balance": "auto"}),
    # The best of the students from scratch.
    "hints, learned weights": Recipe(True, {"lr": 0.03, "signal": "hints", "balance": "uncertainty"}),
    "attention, learned weights": Recipe(True, {"lr": 0.03, "signal": "attention", "balance": "uncertainty"}),
}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Runs what is missing: every recipe on every pruned network, each tool's network taught alike."""
    base = network("resnet56", options.weights)
    part, parts = options.part
    wanted = [
        (tool, case, recipe, seed)
        for seed in SEEDS
        for case in CASES
        for tool in BY
        for recipe in RECIPES
        if not options.recipes or recipe in options.recipes
        if case != HALF or tool == "penjing"
    ]
    for tool, case, recipe, seed in wanted[part::parts]:
        data = pj.data.cifar10(options.data, seed=seed)
        rows.once(
            [tool, case, recipe, seed],
            lambda tool=tool, case=case, recipe=recipe, seed=seed, data=data: one(
                tool, case, recipe, seed, base, data, options, CASES[case]
            ),
        )


def choose(options: argparse.Namespace, rows: Rows) -> None:
    """Compares recipes after one epoch on training images that were held out."""
    base = network("resnet56", options.weights)
    data = held_out(pj.data.cifar10(options.data), HELD)
    part, parts = options.part
    for recipe in list(RECIPES)[part::parts]:
        rows.once([recipe], lambda recipe=recipe: one("penjing", "2.1", recipe, 0, base, data, options, 1, held=True))


def one(
    tool: str, case: str, recipe: str, seed: int, base: pj.Graph, data: pj.Data, options: argparse.Namespace,
    epochs: int, held: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Prunes, trains and judges."""
    asked = argparse.Namespace(**PRUNING, weights=options.weights)
    small = pruned(tool, case, base, data, asked)
    before = judge(recalibrated(small, data), data)
    name = f"{'held' if held else 'all'}_{seed}"
    of = RECIPES[recipe]
    teacher: pj.Graph | Stored | None = base if of.taught else None
    if of.taught and not of.how.get("augment") and not signals[of.how["signal"]].function.taps:
        # Outputs alone are asked for, of the images that another recipe with this seed has asked for.
        teacher = Stored(base, HERE / "out" / f"distillation_pruned_teacher_{name}.safetensors")
    checkpoint = HERE / "out" / f"distillation_pruned_{tool}_{case}_{recipe}_{name}.pt".replace(" ", "-")
    checkpoint.parent.mkdir(exist_ok=True)
    pj.recover(
        small, data, teacher=teacher, epochs=epochs, seed=seed, checkpoint=checkpoint, precision="bfloat16",
        channels_last=True, progress=False, report=lambda told: print(tool, case, recipe, told, flush=True), **of.how,
    )  # fmt: skip
    return {**cost(small), "recalibrated": before["accuracy"], **judge(small, data)}


def pruned(tool: str, case: str, base: pj.Graph, data: pj.Data, asked: argparse.Namespace) -> pj.Graph:
    """Returns the network with fewer filters: to so many times fewer MACs, or half of each group's filters."""
    if case == HALF:
        return pj.prune(base, 0.5, criterion="taylor", data=data)
    return BY[tool](base, data, asked, float(case))[1]


def table(chosen: Rows, rows: Rows) -> None:
    """Publishes what is finished."""
    if chosen.rows:
        found = sorted(chosen.rows.values(), key=lambda row: -row["accuracy"])
        publish(
            "distillation_choose",
            ["recipe", "accuracy", "loss"],
            [[row["key"][0], f"{row['accuracy']:.2%}", f"{row['loss']:.3f}"] for row in found],
            {"recipes": {name: vars(recipe) for name, recipe in RECIPES.items()}},
        )
    if rows.rows:
        table_of_pruned(rows)


def table_of_pruned(rows: Rows) -> None:
    """Publishes the recipes' accuracies beside what was reached before."""
    judged: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows.rows.values():
        tool, case, recipe, _ = row["key"]
        judged.setdefault((case, tool, recipe), []).append(row)
    out = []
    for (case, tool, recipe), each in sorted(judged.items()):
        mean = 100 * statistics.mean(row["accuracy"] for row in each)
        gained = f"{mean - BEFORE[case]:+.2f}" if case in BEFORE and tool == "penjing" else ""
        out.append(
            [
                case if case == HALF else f"{case}×", {"penjing": "Penjing"}.get(tool, "Torch-Pruning"), recipe,
                f"{each[0]['macs'] / 1e6:.1f} M", ", ".join(f"{100 * row['accuracy']:.2f}" for row in each),
                f"{mean:.2f}%", gained,
            ]
        )  # fmt: skip
    publish(
        "distillation_pruned",
        ["MACs", "pruned by", "recipe", "MACs left", "accuracy by seed", "mean", "points to before"],
        out,
        {"aim": AIM, "recipes": {name: vars(recipe) for name, recipe in RECIPES.items()}},
    )
