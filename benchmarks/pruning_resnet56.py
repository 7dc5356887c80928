"""ResNet-56 on CIFAR-10 with fewer filters, recovered in a few epochs, beside Torch-Pruning's group norm.

python benchmarks/pruning_resnet56.py WEIGHTS.safetensors CIFAR10.zip
python benchmarks/pruning_resnet56.py WEIGHTS.safetensors CIFAR10.zip --epochs 100 --lr 0.1     # for those with a GPU
python benchmarks/pruning_resnet56.py WEIGHTS.safetensors CIFAR10.zip --choose                  # how the choices were made
python benchmarks/pruning_resnet56.py WEIGHTS.safetensors CIFAR10.zip --choose-lr 0.01 0.03 0.1

Needs torch-pruning beside Penjing. Both sides are pruned to the same MACs, trained by the same `recover` with the same
arguments (the unpruned network is the teacher), and judged on the same test images. Torch-Pruning can't follow the zero
channels that ResNet-56's shortcuts append, so it is given the inner channels of each block. A run that was killed goes on
where it stopped when it is started again.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import penjing as pj
from _pruning import HERE, Rows, group_norm, held_out, judge, macs_by_unit, network, ranked, recalibrated, to_ratio
from _tables import publish
from penjing.distillation import Stored

RATIOS = (2.1, 2.55)
TOOLS = ("penjing", "torch-pruning")
ALLOWED = {2.1: 0.7, 2.55: 1.2}  # points below the unpruned network
AHEAD = 0.5  # points before Torch-Pruning
PER_MAC = "per MAC"
UNPRUNED = ["unpruned"]
HELD = 2000  # training images that choices are made by
TRIED = (
    ("l2", "uniform"), ("l2", "global"), ("bn_scale", "global"), ("fisher", "global"), ("taylor", "uniform"),
    ("taylor", "global"), ("taylor", PER_MAC), ("fisher", PER_MAC), ("thinet", "uniform"), ("lasso", "uniform"),
)  # fmt: skip


def main() -> None:
    """Runs what is missing, then publishes."""
    options = _options()
    torch.set_num_threads(options.threads)
    rows = Rows(f"pruning_resnet56_{options.epochs}")
    if options.choose:
        choose(network("resnet56", options.weights), held_out(pj.data.cifar10(options.data), HELD), options)
        return
    if options.choose_lr:
        choose_lr(network("resnet56", options.weights), held_out(pj.data.cifar10(options.data), HELD), options)
        return
    if not options.table:
        run(rows, options)
    without = argparse.Namespace(**{**vars(options), "refit": not options.refit})
    keys = [_key(tool, ratio, options) for ratio in RATIOS for tool in TOOLS]
    keys += [_key("penjing", ratio, without) for ratio in RATIOS] + [_key("unpruned", 1, options)]
    finished = [rows.get(key) for key in keys if rows.has(key)]
    table(sorted(finished, key=lambda row: row["key"][2]), rows.get(UNPRUNED), options)


def run(rows: Rows, options: argparse.Namespace) -> None:
    """Runs what is missing."""
    data = pj.data.cifar10(options.data)
    base = network("resnet56", options.weights)
    arguments = dict(epochs=options.epochs, lr=options.lr, precision="bfloat16", channels_last=True)
    rows.once(UNPRUNED, lambda: {**cost(base), **judge(base, data)})
    for ratio in options.ratios:
        for tool in options.tools:
            key = _key(tool, ratio, options)
            rows.once(key, lambda key=key: one(key, base, data, options, arguments))
    if options.unpruned:
        key = _key("unpruned", 1, options)
        rows.once(key, lambda: trained(network("resnet56", options.weights), base, data, key, arguments))


def how(tool: str, options: argparse.Namespace) -> str:
    """Names what a tool goes by."""
    most = f", at most {options.most:g} of a layer" if options.most < 1 else ""
    mine = f"{options.criterion}, {options.allocation}{most}{', readers refitted' if options.refit else ''}"
    return {"penjing": mine, "torch-pruning": "group norm", "unpruned": ""}[tool]


def _key(tool: str, ratio: float, options: argparse.Namespace) -> list[Any]:
    return [tool, how(tool, options), ratio, options.epochs, options.lr, options.seed]


def one(key: list[Any], base: pj.Graph, data: pj.Data, options: argparse.Namespace, arguments: dict[str, Any]) -> Any:
    """Prunes with one of the tools, trains and judges."""
    tool, _, ratio = key[:3]
    start = time.perf_counter()
    if tool == "penjing":
        setting, small = by_penjing(base, data, options, ratio)
    else:
        setting, small = by_torch_pruning(base, data, options, ratio)
    pruned = {"setting": setting, "pruning_seconds": round(time.perf_counter() - start, 1)}
    before = judge(recalibrated(small, data), data)
    print(key, pruned, before, flush=True)
    return {**pruned, "recalibrated": before["accuracy"], **trained(small, base, data, key, arguments)}


def trained(
    small: pj.Graph, base: pj.Graph, data: pj.Data, key: list[Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Trains with the unpruned network as teacher and judges on all test images."""
    name = "_".join(map(str, key)).replace(", ", "_").replace(" ", "-")
    checkpoint = HERE / "out" / f"pruning_resnet56_{name}.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    widths = {group.name: group.units for group in pj.channels(small).groups}
    start = time.process_time()
    teacher = Stored(base, HERE / "out" / f"pruning_resnet56_teacher_{key[-1]}.safetensors")
    pj.recover(
        small, data, teacher=teacher, seed=key[-1], checkpoint=checkpoint, progress=False,
        report=lambda told: print(key, told, flush=True), **arguments,
    )  # fmt: skip
    small.save(HERE / "out" / f"pruning_resnet56_{name}.penjing")
    return {**cost(small), **judge(small, data), "seconds": round(time.process_time() - start), "widths": widths}


def by_penjing(base: pj.Graph, data: pj.Data, options: argparse.Namespace, ratio: float) -> tuple[str, pj.Graph]:
    """Prunes all channels, those that shortcuts carry too.

    With the allocation "per MAC", units go in the order of what the criterion says of them over the MACs that go with
    them in the whole network; for a criterion in units of the loss (taylor, fisher) this is the greedy solution of the
    knapsack.
    """
    known = ranked(base, options.criterion, data, refit=options.refit)
    if options.allocation == PER_MAC:
        costs = macs_by_unit(base)

        def prune(amount: float) -> pj.Graph:
            shares = known.per(costs, amount, options.most)
            return pj.prune(base, shares, criterion=known.criterion, allocation="plan")

    else:

        def prune(amount: float) -> pj.Graph:
            return pj.prune(base, amount, criterion=known.criterion, allocation=options.allocation)

    amount, small = to_ratio(prune, base.cost().macs, ratio)
    return f"{how('penjing', options)}, {amount:.3f}", small


def by_torch_pruning(
    base: pj.Graph, data: pj.Data, options: argparse.Namespace, ratio: float, judged: pj.Data | None = None
) -> tuple[str, pj.Graph]:
    """Prunes by Torch-Pruning's group norm, within layers or over all, whichever is better on held-out images."""
    judged = judged or held_out(data, HELD)
    tried = {}
    for everywhere in (False, True):
        amount, small = to_ratio(
            lambda amount, e=everywhere: group_norm("resnet56", options.weights, amount, e), base.cost().macs, ratio
        )
        setting = f"group norm, {'global' if everywhere else 'uniform'}, {amount:.3f}"
        tried[setting] = small, judge(recalibrated(small, judged), judged)
        print(setting, tried[setting][1], flush=True)
    setting = max(tried, key=lambda one: tried[one][1]["accuracy"])
    return setting, tried[setting][0]


def cost(graph: pj.Graph) -> dict[str, int]:
    """Returns what the graph costs."""
    found = graph.cost()
    return {"macs": found.macs, "params": found.params}


def choose(base: pj.Graph, data: pj.Data, options: argparse.Namespace) -> None:
    """Compares choices on training images that were held out, before any training, with the norms' statistics anew."""
    rows = Rows("pruning_resnet56_choices")
    for criterion, allocation in TRIED:
        for ratio in RATIOS[:1]:

            def run(criterion: str = criterion, allocation: str = allocation, ratio: float = ratio) -> dict[str, Any]:
                wanted = argparse.Namespace(
                    criterion=criterion, allocation=allocation, refit=options.refit, most=options.most
                )
                setting, small = by_penjing(base, data, wanted, ratio)
                return {"setting": setting, **cost(small), **judge(recalibrated(small, data), data)}

            rows.once([criterion, allocation, options.refit, ratio], run)


def choose_lr(base: pj.Graph, data: pj.Data, options: argparse.Namespace) -> None:
    """Compares learning rates on training images that were held out, after one epoch."""
    rows = Rows("pruning_resnet56_lr")
    for tool in options.tools:
        for lr in options.choose_lr:

            def run(tool: str = tool, lr: float = lr) -> dict[str, Any]:
                prune = by_penjing if tool == "penjing" else by_torch_pruning
                small = prune(base, data, options, options.ratios[0])[1]
                teacher = Stored(base, HERE / "out" / f"pruning_resnet56_teacher_{options.seed}_held.safetensors")
                pj.recover(
                    small, data, teacher=teacher, epochs=1, lr=lr, precision="bfloat16", channels_last=True,
                    seed=options.seed, progress=False,
                )  # fmt: skip
                return judge(small, data)

            rows.once([*_key(tool, options.ratios[0], options)[:3], lr], run)


def table(found: list[dict[str, Any]], unpruned: dict[str, Any], options: argparse.Namespace) -> None:
    """Publishes what was reached beside what was aimed at."""
    torch_pruning = {row["key"][2]: row["accuracy"] for row in found if row["key"][0] == "torch-pruning"}
    out = [
        ["unpruned", "", f"{unpruned['macs'] / 1e6:.1f} M", f"{unpruned['params']:,}", "", _percent(unpruned), "", ""]
    ]
    for row in found:
        tool, _, ratio = row["key"][:3]
        compared = tool == "penjing" and ratio in torch_pruning
        ahead = f"{100 * (row['accuracy'] - torch_pruning[ratio]):+.2f}" if compared else ""
        out.append(
            [
                {"penjing": "Penjing", "torch-pruning": "Torch-Pruning"}.get(tool, "unpruned, trained as long"),
                row.get("setting", ""),
                f"{row['macs'] / 1e6:.1f} M ({unpruned['macs'] / row['macs']:.2f}×)",
                f"{row['params']:,}",
                f"{row['recalibrated']:.2%}" if "recalibrated" in row else "",
                _percent(row),
                f"{100 * (row['accuracy'] - unpruned['accuracy']):+.2f}",
                ahead,
            ]
        )
    publish(
        "pruning_resnet56" if options.epochs == 3 else f"pruning_resnet56_{options.epochs}",
        ["", "pruned by", "MACs", "parameters", "norms anew, no training", "test accuracy",
         "points to unpruned", "points to Torch-Pruning"],
        out,
        {"epochs": options.epochs, "lr": options.lr, "seed": options.seed, "rows_in_full": found},
    )  # fmt: skip
    for row in found:
        if row["key"][0] == "penjing" and row["key"][2] in torch_pruning:
            ratio, lost = row["key"][2], 100 * (unpruned["accuracy"] - row["accuracy"])
            lead = 100 * (row["accuracy"] - torch_pruning[ratio])
            print(f"{ratio}×: {lost:.2f} points lost (at most {ALLOWED[ratio]}), {lead:.2f} ahead (at least {AHEAD})")


def _percent(row: dict[str, Any]) -> str:
    return f"{row['accuracy']:.2%}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.03, help="peak learning rate of both sides")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--criterion", default="taylor", help="Penjing's")
    parser.add_argument(
        "--allocation", default=PER_MAC, help="Penjing's; a name in `penjing list allocations`, or %(default)r"
    )
    parser.add_argument(
        "--most", type=float, default=1.0, help="with the allocation 'per MAC', no layer loses more than this share"
    )
    parser.add_argument(
        "--no-refit", dest="refit", action="store_false", help="leave the layers that read what goes as they are"
    )
    parser.add_argument("--unpruned", action="store_true", help="also train the unpruned network as long")
    parser.add_argument(
        "--choose", action="store_true", help="compare choices on held-out training images, no training"
    )
    parser.add_argument(
        "--choose-lr", type=float, nargs="+", help="compare learning rates on held-out training images, after one epoch"
    )
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS, help="only these; runs may share the work")
    parser.add_argument("--ratios", nargs="+", type=float, choices=RATIOS, default=RATIOS, help="only these")
    parser.add_argument("--table", action="store_true", help="run nothing, publish what is finished")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
