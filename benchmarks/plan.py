"""What planning place by place brings: accuracy and measured speed of several ways to one latency, with the same training.

python benchmarks/plan.py resnet20 RESNET20.safetensors CIFAR10.zip --latency 0.5x 0.33x [--batch 32] [--epochs 6]
python benchmarks/plan.py table      # publishes what is finished in docs/results.md
python benchmarks/plan.py plot       # draws it into docs/plan.svg, and prints the table

Each way makes the network small, which is then trained with the original as teacher, quantised and lowered. The accuracy is that
of the file, run by ONNX Runtime on all test images; the latency is that of the file beside the original's, in turns, on one
thread.
The ways:

    quantize            nothing but int8
    milp                the exact solver under measured latency
    milp by MACs        the exact solver under a limit on MACs, the one whose file has the wanted latency
    greedy              one option after another, under measured latency
    widest_that_fits    equal widths
    prune               the exact solver, in floating point
    factorize           the exact solver with low rank in the place of pruning
    torch-pruning       Torch-Pruning's group norm within blocks, and ONNX Runtime's own static quantisation

All are trained, "quantize" too. It comes first and pays for the teacher's answers, which the others find in a file, so that its
seconds of training tell nothing of the others'. Finished rows are not run again. A row that was killed goes on from what it
planned and from its training's last checkpoint; it has no seconds of training then.
"""

import argparse
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import penjing as pj
from _plan_plot import draw
from _plan_ways import WAYS, Case, files_of, lowered, planned, share_of
from _pruning import HERE, Rows, network, some
from _tables import publish, shown
from penjing.data._memory import MemoryLoader
from penjing.distillation import Stored
from penjing.evidence.memory import remembering

COLUMNS = [
    "network", "batch", "budget", "way", "MACs left", "parameters left", "file", "faster", "accuracy", "epochs",
    "planning", "training",
]  # fmt: skip
SECONDS = 20.0  # of timing the files at the end
ANSWERS_ALONE = ("auto", "soft_labels")  # signals that a teacher's stored answers are enough for


@dataclass(frozen=True)
class Training:
    """How all ways are trained."""

    epochs: int
    signal: str
    seed: int


def main() -> None:
    """Runs what is missing, publishes, or draws."""
    asked = _asked()
    rows = Rows("plan")
    if asked.what in ("table", "plot"):
        found = table(rows)
        if not found:
            raise SystemExit("No way is finished: run the benchmark first.")
        if asked.what == "table":
            publish("plan", COLUMNS, found)
        else:
            print(shown(COLUMNS, found))
            print(draw(points(rows)))
        return
    logging.basicConfig(format="%(message)s")
    logging.getLogger("penjing.planning").setLevel(logging.INFO)
    torch.set_num_threads(asked.threads)
    data = remembering(few(pj.data.cifar10(asked.data, seed=asked.seed), asked.images))
    base = network(asked.what, asked.weights)
    training = Training(asked.epochs, asked.signal, asked.seed)
    for latency in asked.latency:
        case = Case(asked.what, asked.weights, base, data, latency, asked.batch)
        shared = [asked.what, asked.batch, asked.images]
        rows.once(shared, lambda case=case: original(case))
        for way in asked.ways:
            budget = None if way == "quantize" else latency  # nothing depends on it there
            key = [*shared, budget, *vars(training).values(), way]
            rows.once(key, lambda case=case, way=way, key=key: run(case, way, training, "_".join(map(str, key))))


def original(case: Case) -> dict[str, Any]:
    """Returns the accuracy of the original's file, and what it costs."""
    with files_of(case) as files:
        file = lowered(case.base, files / "original.onnx")
        cost = case.base.cost()
        return {
            "accuracy": accuracy(file, case.data),
            "size": file.size_bytes,
            "macs": cost.macs,
            "params": cost.params,
        }


def run(case: Case, way: str, training: Training, name: str) -> dict[str, Any]:
    """Returns the accuracy and the speed of what a way makes, and the seconds of planning and training."""
    folder = HERE / "out" / "plan" / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    small = planned(case, way, folder)
    seconds = trained(small.graph, case, training, folder / "training.pt")
    with files_of(case) as files:
        together = {"original": lowered(case.base, files / "original.onnx")}
        together["small"], integer = WAYS[way].finish(small, case, files / "small.onnx")
        share, before, after = share_of(together, case, SECONDS)
        cost = small.graph.cost()
        return {
            "accuracy": accuracy(together["small"], case.data), "latency": share, "original_ms": before, "ms": after,
            "size": together["small"].size_bytes, "macs": cost.macs, "params": cost.params, "integer": integer, **small.told,
            "training_seconds": seconds,
        }  # fmt: skip


def trained(small: pj.Graph, case: Case, training: Training, checkpoint: Path) -> float | None:
    """Trains a network; returns the seconds, or None where an earlier process began."""
    begun, start = checkpoint.exists(), time.perf_counter()
    store = HERE / "out" / "plan" / f"teacher_{case.name}_{training.seed}.safetensors"
    teacher = Stored(case.base, store) if training.signal in ANSWERS_ALONE else case.base
    pj.recover(
        small, case.data, teacher=teacher, epochs=training.epochs, signal=training.signal, seed=training.seed,
        precision="bfloat16", channels_last=True, progress=False, checkpoint=checkpoint if training.epochs else None,
        report=lambda told: print(checkpoint.parent.name, told, flush=True),
    )  # fmt: skip
    return None if begun else round(time.perf_counter() - start, 1)


def accuracy(file: pj.targets.Artifact, data: pj.Data) -> float:
    """Returns the accuracy of a lowered file on all test images."""
    call, right, count = pj.targets.session(file), 0, 0
    for inputs, targets in data.validation or ():
        answers = torch.as_tensor(_first(call(inputs)))
        right, count = right + int((answers.argmax(1) == targets).sum()), count + len(targets)
    return right / count


def _first(outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


def few(data: pj.Data, images: int | None) -> pj.Data:
    """Returns data with so many training and test images alone, for trying the script; all of them where it is None."""
    if images is None:
        return data
    test = data.validation
    assert isinstance(test, MemoryLoader)
    step = max(1, len(test._targets) // images)  # they are sorted by class
    pixels: Tensor = test._images[::step].permute(0, 2, 3, 1)
    cut = MemoryLoader(pixels.numpy(), test._targets[::step].numpy(), test._preprocess, batch_size=test.batch_size)
    return replace(some(data, images), validation=cut, validation_files=None)


def table(rows: Rows) -> list[list[Any]]:
    """Returns the table of what is finished: the originals, then the ways in their order, by budget."""
    found = []
    for row, whole in finished(rows):
        network_, batch, _, budget, epochs, *_, way = row["key"]
        found.append([
            network_, batch, budget or "–", way, f"{row['macs'] / whole['macs']:.0%}", f"{row['params'] / whole['params']:.0%}",
            f"{row['size'] / 1e3:.0f} kB", f"{1 / row['latency']:.2f}×", _points(row["accuracy"], whole["accuracy"]), epochs,
            _seconds(row["planning_seconds"]), _seconds(row["training_seconds"]),
        ])  # fmt: skip
    return found


def points(rows: Rows) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Returns the points of the plot, latency over the original's and accuracy, by panel and way."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row, whole in finished(rows):
        network_, batch, *_, way = row["key"]
        panel = found.setdefault(f"{network_}, batch {batch}", {"original": [(1.0, whole["accuracy"])]})
        panel.setdefault(way, []).append((row["latency"], row["accuracy"]))
    return found


def finished(rows: Rows) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Returns the finished rows of all images, each with that of its original."""
    order = list(WAYS)
    ways = [row for row in rows.rows.values() if len(row["key"]) > 3 and row["key"][2] is None]
    ways.sort(key=lambda row: (*map(str, row["key"][:-1]), order.index(row["key"][-1])))
    return [(row, rows.get(row["key"][:3])) for row in ways]


def _points(found: float, whole: float) -> str:
    return f"{found:.2%} ({100 * (found - whole):+.2f})"


def _seconds(found: float | None) -> str:
    return "–" if found is None else f"{found:.0f} s"


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", help="resnet20 or resnet56, or 'table', or 'plot'")
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--latency", nargs="+", default=["0.33x"], help="shares of the original's latency")
    parser.add_argument("--batch", type=int, default=1, help="samples of a call, while planning and measuring")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--signal", default="auto", help="what is learnt from the original; see penjing list signals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=1, help="of planning and training; files run on one")
    parser.add_argument(
        "--images", type=int, help="for trying the script: so many training and test images; no table has them"
    )
    asked = parser.parse_args()
    if asked.what not in ("table", "plot") and (asked.weights is None or asked.data is None):
        parser.error("give the network's weights and the data")
    return asked


if __name__ == "__main__":
    main()
