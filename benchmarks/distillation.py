"""What a teacher is worth: every signal, balance and schedule, on CIFAR-10.

python benchmarks/distillation.py RESNET56.safetensors CIFAR10.zip screen      # all choices, a quarter of the images
python benchmarks/distillation.py RESNET56.safetensors CIFAR10.zip students    # the best ones, all images, three seeds
python benchmarks/distillation.py RESNET56.safetensors CIFAR10.zip choose      # recipes for a pruned ResNet-56, one epoch
python benchmarks/distillation.py RESNET56.safetensors CIFAR10.zip pruned      # the best recipes, two seeds, two tools
python benchmarks/distillation.py RESNET56.safetensors CIFAR10.zip table       # publishes what is finished

The student is a ResNet-20 from scratch, the teacher ResNet-56. Choices are screened on training images that were held out, and
only the best are judged on the test images. A run that was killed goes on where it stopped when it is started again; with
`--part 0 2` and `--part 1 2` two processes share the rows.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

import _distillation_pruned
import penjing as pj
from _pruning import HERE, Rows, held_out, judge, network, some
from _tables import publish
from penjing.distillation import Stored, balances, distillation_schedules, signals

HELD = 5000  # training images that choices are judged on
QUARTER = 12_500  # training images that choices are trained on
SCREENED = {"epochs": 5, "lr": 0.1}
FINAL = {"epochs": 10, "lr": 0.1}
SEEDS = (0, 1, 2)
BEST = 4  # choices that are judged on the test images, beside soft labels and no teacher
AIM = 0.7  # points of the best before no teacher
ALONE = "none"


class Choice(NamedTuple):
    """How the student is taught.

    Attributes:
        signal: a name among `signals`, or `ALONE` for no teacher.
        balance: a name among `balances`.
        schedule: a name among `distillation_schedules`.
    """

    signal: str
    balance: str = "auto"
    schedule: str = "joint"

    def __str__(self) -> str:
        return self.signal if self.signal == ALONE else " × ".join(self)


WITHOUT = Choice(ALONE, "", "")
TODAY = Choice("soft_labels", "fixed")
OF_SEQUENCES = ("transformer",)  # signals that convolutional networks have nothing for; see distillation_encoder.py
OF_SIGNALS = [WITHOUT, TODAY, *[Choice(name) for name in signals if name not in OF_SEQUENCES]]
FOR_THE_REST = ("soft_labels", "hints", "attention")  # signals by which balances and schedules are compared


def screened() -> list[Choice]:
    """Returns all choices that are screened."""
    of_balances = [Choice(signal, balance) for balance in balances for signal in FOR_THE_REST]
    of_schedules = [Choice(signal, "auto", schedule) for schedule in distillation_schedules for signal in FOR_THE_REST]
    return list(dict.fromkeys([*OF_SIGNALS, *of_balances, *of_schedules]))


def main() -> None:
    """Runs what is missing of one table, or publishes."""
    options = _options()
    torch.set_num_threads(options.threads)
    screen, students = Rows("distillation_screen"), Rows("distillation_students")
    part, parts = options.part
    if options.what == "screen":
        data = some(held_out(pj.data.cifar10(options.data), HELD), QUARTER)
        teacher = network("resnet56", options.weights)
        for choice in screened()[part::parts]:
            screen.once(choice, lambda choice=choice: student(choice, teacher, data, 0, SCREENED, "screen"))
    elif options.what == "students":
        teacher = network("resnet56", options.weights)
        wanted = [(choice, seed) for seed in SEEDS for choice in finalists(screen)]
        for choice, seed in wanted[part::parts]:
            data = pj.data.cifar10(options.data, seed=seed)
            students.once(
                [*choice, seed],
                lambda choice=choice, data=data, seed=seed: student(choice, teacher, data, seed, FINAL, "final"),
            )
    elif options.what == "choose":
        _distillation_pruned.choose(options, Rows("distillation_choose"))
    elif options.what == "pruned":
        _distillation_pruned.run(options, Rows("distillation_pruned"))
    else:
        tables(screen, students)
        _distillation_pruned.table(Rows("distillation_choose"), Rows("distillation_pruned"))


def student(
    choice: Choice, teacher: pj.Graph, data: pj.Data, seed: int, how: dict[str, Any], stage: str
) -> dict[str, Any]:
    """Trains a ResNet-20 from scratch and judges it."""
    torch.manual_seed(seed)
    graph = pj.capture(pj.zoo.resnet20(), pj.zoo.example_input("resnet20"))
    taught_by: pj.Graph | Stored | None = None
    chosen: dict[str, Any] = {}
    if choice.signal != ALONE:
        entry = signals[choice.signal]
        inside = entry.function.taps or "gradients" in entry.needs  # then its outputs alone aren't enough
        answers = HERE / "out" / f"distillation_{stage}_{seed}.safetensors"
        taught_by = teacher if inside else Stored(teacher, answers)
        chosen = {"signal": choice.signal, "balance": choice.balance, "schedule": choice.schedule}
    checkpoint = HERE / "out" / f"distillation_{stage}_{'_'.join(choice)}_{seed}.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    start, told = time.process_time(), []
    pj.recover(
        graph, data, teacher=taught_by, seed=seed, checkpoint=checkpoint, precision="bfloat16", channels_last=True,
        progress=False, report=told.append, **how, **chosen,
    )  # fmt: skip
    seconds = round(time.process_time() - start)
    balance = told[-1]["balance"] if told else {}
    return {**judge(graph, data), "seconds": seconds, "balance": balance, "losses": told[-1]["losses"] if told else {}}


def finalists(screen: Rows) -> list[Choice]:
    """Returns no teacher, soft labels, and the best of the others."""
    rows = {choice: screen.get(choice)["accuracy"] for choice in screened()}
    best = sorted(rows, key=lambda choice: rows[choice], reverse=True)
    others = [choice for choice in best if choice not in (WITHOUT, TODAY)]
    return [WITHOUT, TODAY, *others[:BEST]]


def tables(screen: Rows, students: Rows) -> None:
    """Publishes what is finished of both tables."""
    found = [(choice, screen.get(choice)) for choice in screened() if screen.has(choice)]
    if not found:
        return
    alone = screen.get(WITHOUT)["accuracy"]
    publish(
        "distillation_screen",
        ["signal", "balance", "schedule", "accuracy", "points to no teacher", "measured by the balance", "seconds"],
        [
            [*choice, f"{row['accuracy']:.2%}", f"{100 * (row['accuracy'] - alone):+.2f}", _measured(row), row["seconds"]]
            for choice, row in sorted(found, key=lambda one: -one[1]["accuracy"])
        ],
        SCREENED,
    )  # fmt: skip
    if not students.rows:
        return
    judged: dict[Choice, list[float]] = {}
    for row in students.rows.values():
        judged.setdefault(Choice(*row["key"][:3]), []).append(100 * row["accuracy"])
    alone = statistics.mean(judged[WITHOUT])
    publish(
        "distillation_students",
        ["signal", "balance", "schedule", "accuracy by seed", "mean", "points to no teacher"],
        [
            [*choice, ", ".join(f"{one:.2f}" for one in each), f"{statistics.mean(each):.2f}%",
             f"{statistics.mean(each) - alone:+.2f}"]
            for choice, each in sorted(judged.items(), key=lambda one: -statistics.mean(one[1]))
        ],
        {**FINAL, "aim": AIM},
    )  # fmt: skip


def _measured(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in row["balance"].items())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("what", choices=("screen", "students", "choose", "pruned", "table"))
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="only the K-th of N shares"
    )
    parser.add_argument(
        "--recipes", nargs="+", choices=list(_distillation_pruned.RECIPES), help="of pruned networks, only these"
    )
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
