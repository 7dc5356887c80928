"""Whether plans keep what they promise: the damage of random plans, and the latency of plans for random budgets.

python benchmarks/plan_promises.py damage  resnet20 RESNET20.safetensors CIFAR10.zip
python benchmarks/plan_promises.py budgets resnet20 RESNET20.safetensors CIFAR10.zip
python benchmarks/plan_promises.py table      # publishes what is finished in docs/results.md

damage: random plans remove branches and thin groups. The sum of what each option does alone is compared with what the whole plan
does to the loss at once, and with the loss on other images after a short training.

budgets: for random shares of the original's latency a network is planned and quantised. Its file is measured beside the
original's, in turns, on one thread, by medians, as in the report of `penjing compress`.

Finished rows are not run again.
"""

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import penjing as pj
from _pruning import Rows, held_out, network, some
from _tables import publish
from penjing.capabilities import find as capabilities
from penjing.evidence.memory import remembering
from penjing.planning.damage import LossIncrease
from penjing.techniques import Scope, find

PLANS, BUDGETS = 30, 20
IMAGES, HELD = 12_800, 2_500  # of the short training, and of those on which the loss is judged behind it
SECONDS = 12.0  # of timing a file
PASSED, WASTED = 1.03, 0.9  # shares of the allowed latency


def main() -> None:
    """Runs what is missing, or publishes."""
    asked = _asked()
    rows = Rows("plan_promises")
    if asked.what == "table":
        table(rows)
        return
    torch.set_num_threads(1)
    data = pj.data.cifar10(asked.data)
    base = network(asked.network, asked.weights)
    if asked.what == "damage":
        data = remembering(held_out(data, HELD))
        known = Damages(base, data)
        for number in range(PLANS):
            rows.once(["damage", asked.network, number], lambda number=number: known.of(number))
    else:
        data = remembering(data)
        shares = np.random.default_rng(0).uniform(0.12, 0.9, BUDGETS).round(3).tolist()
        for share in shares:
            rows.once(["budgets", asked.network, share], lambda share=share: hit(base, data, share))


class Damages:
    """The damage of random plans, by the sum of their options and as a whole."""

    def __init__(self, base: pj.Graph, data: pj.Data) -> None:
        self._base, self._data = base, data
        self._technique = find("prune", {"criterion": "taylor"})
        self._increase = LossIncrease(base, data)
        self._places: dict[Any, list[Any]] = {}
        for option in self._technique.choices(base, data, capabilities("onnxruntime"), Scope()):
            self._places.setdefault(option.place, []).append(option)

    def of(self, number: int) -> dict[str, Any]:
        """Returns what a random plan does by its options, at once, and after a short training."""
        draw = random.Random(number)
        share = draw.uniform(0.1, 0.7)  # of the places that change
        taken = [draw.choice(options) for options in self._places.values() if draw.random() < share]
        gone = {option.place.path for option in taken if option.place.kind == "branch"}
        taken = [
            o for o in taken if o.place.kind == "branch" or not any(o.place.path.startswith(f"{one}.") for one in gone)
        ]
        alone = sum(self._increase.of(self._technique, [option]) for option in taken)
        together = self._increase.together({"prune": self._technique}, taken)
        small = self._technique.apply(self._base, self._technique.settled(self._base, taken), self._data)
        pj.recover(
            small, some(self._data, IMAGES), epochs=1, lr=0.03, seed=0, precision="bfloat16", channels_last=True, progress=False,
            signal="soft_labels",
        )  # fmt: skip
        judged = [self._data.task.split(batch) for batch in self._data.validation]
        with torch.no_grad():
            losses = [float(self._data.task.loss(small(*inputs), targets)) for inputs, targets in judged]
        return {
            "options": len(taken),
            "branches": len(gone),
            "alone": alone,
            "together": together,
            "trained": float(np.mean(losses)),
        }


def hit(base: pj.Graph, data: pj.Data, share: float) -> dict[str, Any]:
    """Returns the measured latency, over the original's, of the file of a plan for this share of it."""
    plan = pj.plan(
        base, data, budget=pj.Budget(latency=f"{share}x"), techniques={"prune": {"criterion": "l2"}, "quantize": {}}
    )
    small = pj.apply(base, plan, data, stage="all")
    with tempfile.TemporaryDirectory() as folder:
        files = {
            name: pj.lower(graph, path=Path(folder) / f"{name}.onnx")
            for name, graph in (("original", base), ("small", small))
        }
        found = pj.targets.measure_together(files, seconds=SECONDS, runs=3000, memory=False)
    before, after = (found[name].latency_ms.median for name in files)
    structure = sum(option.technique != "quantize" for option in plan)
    return {"reached": after / before, "options": structure, "integer": structure < len(plan.options)}


def table(rows: Rows) -> None:
    """Publishes how well damages rank plans, and how many budgets are hit."""
    found: dict[str, list[dict[str, Any]]] = {"damage": [], "budgets": []}
    for row in rows.rows.values():
        found[row["key"][0]].append(row)
    damages, budgets = [], []
    for name in sorted({row["key"][1] for row in found["damage"]}):
        mine = [row for row in found["damage"] if row["key"][1] == name]
        pairs = (("alone", "together"), ("alone", "trained"), ("together", "trained"))
        ranks = [float(spearmanr(*([row[key] for row in mine] for key in pair)).statistic) for pair in pairs]
        damages.append([name, len(mine), *(f"{one:.2f}" for one in ranks)])
    for name in sorted({row["key"][1] for row in found["budgets"]}):
        mine = [row for row in found["budgets"] if row["key"][1] == name]
        used = [row["reached"] / row["key"][2] for row in mine]
        kept = sum(one <= PASSED for one in used)
        spare = sum(one < WASTED for one, row in zip(used, mine, strict=True) if row["options"])
        budgets.append([name, len(mine), kept, spare, f"{np.median(used):.2f}×", f"{max(used):.2f}×"])
    publish("plan_damage", ["network", "plans", "sum and whole", "sum and trained", "whole and trained"], damages)
    columns = [
        "network",
        "budgets",
        f"kept within {PASSED}×",
        f"thinned to below {WASTED}×",
        "share used, median",
        "most",
    ]
    publish("plan_budgets", columns, budgets)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("damage", "budgets", "table"))
    parser.add_argument("network", nargs="?", help="resnet20 or resnet56")
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    asked = parser.parse_args()
    if asked.what != "table" and asked.data is None:
        parser.error("give the network, its weights and the data")
    return asked


if __name__ == "__main__":
    main()
