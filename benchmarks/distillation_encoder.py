"""A BERT-like encoder of six layers distilled to two: which language is a message in? With and without its teacher.

    pip download django --no-deps
    python benchmarks/distillation_encoder.py django-5.2.19-py3-none-any.whl --choose     # how the choices were made
    python benchmarks/distillation_encoder.py django-5.2.19-py3-none-any.whl

Needs `tokenizers` beside Penjing. The texts are Django's translated messages (see `_django_messages.py`). Students with and
without teacher begin with the same weights and see the same batches in as many steps. Choices are made by messages that are
held out, of other source messages than the test's. Accuracies and latencies are of the files for ONNX Runtime. A run that was
killed goes on where it stopped when it is started again.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import penjing as pj
from _django_messages import PARTS, data, padded
from _encoder import Remembered, encoder
from _rows import HERE, Rows
from _tables import publish
from penjing.tasks import evaluate

NAME = "distillation_encoder"
OUT = HERE / "out"
DEEP, FLAT = 6, 2  # layers of teacher and student
TRAINING: dict[str, Any] = {
    "optimizer": "adamw", "weight_decay": 0.01, "warmup": 0.1, "clip_norm": 1.0, "precision": "float32",
    "channels_last": False, "progress": False,
}  # fmt: skip
TEACHER: dict[str, Any] = {"epochs": 12, "lr": 1e-3, "seed": 0}
STARTS: dict[str, tuple[int, ...]] = {
    "new": (),
    "layers 1 and 2": (0, 1),
}  # those of the teacher's that a student begins as
BEGUN = {"new": "new weights", "layers 1 and 2": "begun as the teacher's first two"}
STUDENT: dict[str, Any] = {"start": "new", "epochs": 3, "lr": 1e-3}
CHOSEN: dict[str, Any] = {"signal": "transformer", "balance": "auto"}
LONG: dict[str, Any] = {"epochs": 8}  # until the student without teacher has learned what there is to learn
LONG_CHOSEN: dict[str, Any] = {**LONG, "signal": "soft_labels", "balance": "fixed"}
SHOWN: tuple[dict[str, Any], ...] = ({}, CHOSEN, LONG, LONG_CHOSEN)  # students of the table, over all seeds
SEEDS = (0, 1)
TRIED: tuple[dict[str, Any], ...] = (
    {},
    CHOSEN,
    LONG,
    LONG_CHOSEN,
    {**LONG, "signal": "dkd", "balance": "auto"},
    {**LONG, **CHOSEN},
    {"start": "layers 1 and 2"},
    {"start": "layers 1 and 2", "signal": "soft_labels", "balance": "fixed"},
)  # on the messages held out, with one seed
FASTER, BELOW, ABOVE = 2.5, 2.0, 1.0  # aims: times; points below the teacher; points above the student without teacher


def main() -> None:
    """Runs what is missing, then publishes."""
    options = _options()
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    rows = Rows(NAME)
    if not options.table:
        rows.once(_key(TEACHER), lambda: teacher(options.wheel))
        wanted = [(choices, 0) for choices in TRIED] if options.choose else []
        for choices, seed in wanted or [(choices, seed) for seed in SEEDS for choices in SHOWN]:
            rows.once(_key(choices, seed), lambda choices=choices, seed=seed: student(options.wheel, choices, seed))
    if options.choose:
        publish_choices(rows)
        return
    rows.once(["latency", *_key({}, 0)], lambda: latencies(options.wheel))
    publish_results(rows)


def _key(choices: Mapping[str, Any], seed: int | None = None) -> list[Any]:
    if seed is None:
        return ["teacher", *choices.values()]
    return ["student", *(f"{name}={value}" for name, value in {**STUDENT, **choices}.items()), seed]


def _file(key: list[Any], suffix: str) -> Path:
    name = "_".join(map(str, [NAME, *key]))
    return OUT / f"{name.replace(' ', '-')}{suffix}"


def teacher(wheel: Path) -> dict[str, Any]:
    """Trains the teacher, keeps it in a file, and judges it."""
    key, began = _key(TEACHER), time.process_time()
    graph = encoder(DEEP, TEACHER["seed"])
    trained(graph, wheel, key, TEACHER)
    graph.save(_file(key, ".penjing"))
    return {**judged(graph, wheel, key), **cost(graph), "seconds": round(time.process_time() - began)}


def student(wheel: Path, choices: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Trains a student under these choices and judges it; without a signal it has no teacher."""
    key, how, began = _key(choices, seed), {**STUDENT, **choices}, time.process_time()
    taken = STARTS[how.pop("start")]
    master = pj.load(_file(_key(TEACHER), ".penjing")) if taken or "signal" in how else None
    graph = encoder(FLAT, seed, master if taken else None, taken)
    taught_by: torch.nn.Module | None = master if "signal" in how else None
    if master is not None and "signal" in how and not pj.distillation.signals[how["signal"]].function.taps:
        taught_by = Remembered(master, data(wheel).train)
    trained(graph, wheel, key, {**how, "seed": seed, "teacher": taught_by})
    return {**judged(graph, wheel, key), **cost(graph), "seconds": round(time.process_time() - began)}


def trained(graph: pj.Graph, wheel: Path, key: list[Any], how: Mapping[str, Any]) -> None:
    """Trains a graph, from where an earlier run stopped."""

    def tell(epoch: Mapping[str, Any]) -> None:
        print(key, epoch["epoch"], epoch["losses"], epoch["balance"], f"{epoch['seconds']:.0f} s", flush=True)

    pj.recover(graph, data(wheel), checkpoint=_file(key, ".pt"), report=tell, **TRAINING, **how)


def judged(graph: pj.Graph, wheel: Path, key: list[Any]) -> dict[str, float]:
    """Returns the accuracies of the file that is lowered of a graph, of the messages held out and of the test's."""
    run = pj.targets.session(pj.lower(graph, path=_file(key, ".onnx")))
    found = {}
    for part in ("held out", "test"):
        messages = data(wheel, part)
        assert messages.validation is not None
        found[part] = float(evaluate(run, messages.validation, messages.task) or 0.0)
    return found


def cost(graph: pj.Graph) -> dict[str, int]:
    """Returns the number of parameters."""
    return {"parameters": graph.cost().params}


def latencies(wheel: Path) -> dict[str, Any]:
    """Returns the milliseconds of teacher and student, whose files take turns: of the longest message and of a usual one.

    All students are the same ops, so one of them stands for all.
    """
    files = {"teacher": _file(_key(TEACHER), ".onnx"), "student": _file(_key({}, 0), ".onnx")}
    opened = {name: pj.targets.open_artifact(file) for name, file in files.items()}
    messages: Any = data(wheel).validation
    by_length = sorted(messages.ids, key=len)
    found: dict[str, Any] = {"bytes": {name: artifact.size_bytes for name, artifact in opened.items()}}
    for name, message in (("longest", by_length[-1]), ("usual", by_length[len(by_length) // 2])):
        times = pj.targets.measure_together(
            opened, runs=2000, seconds=60, memory=False, inputs=dict.fromkeys(opened, padded([message]))
        )
        found[name] = {"tokens": len(message)} | {which: one.latency_ms.median for which, one in times.items()}
    return found


def publish_results(rows: Rows) -> None:
    """Publishes the mean over seeds, beside the aims."""
    master, times = rows.get(_key(TEACHER)), rows.get(["latency", *_key({}, 0)])
    best = 100 * master["test"]
    table = [[
        f"teacher, {DEEP} layers", "labels", TEACHER["epochs"], f"{master['parameters']:,}", f"{best:.2f} %", "", "",
        *_times(times, "teacher"),
    ]]  # fmt: skip
    points: dict[str, tuple[float, float]] = {}
    for alone, taught in (({}, CHOSEN), (LONG, LONG_CHOSEN)):
        accuracies = {}
        for words, choices in (("labels", alone), (_words(taught), taught)):
            found = [rows.get(_key(choices, seed)) for seed in SEEDS]
            each = [100 * row["test"] for row in found]
            accuracies[words] = mean(each)
            gain = mean(each) - accuracies["labels"]
            points[words] = mean(each) - best, gain
            table.append([
                f"student, {FLAT} layers", words, {**STUDENT, **choices}["epochs"], f"{found[0]['parameters']:,}",
                f"{mean(each):.2f} % ({', '.join(f'{one:.2f}' for one in each)})", f"{mean(each) - best:+.2f}",
                "" if words == "labels" else f"{gain:+.2f}", *(_times(times, "student") if choices == CHOSEN else ("", "")),
            ])  # fmt: skip
    faster = times["longest"]["teacher"] / times["longest"]["student"]
    below, above = points[_words(CHOSEN)]
    met = {
        f"at least {FASTER}× faster": faster >= FASTER,
        f"at most {BELOW:g} points below the teacher": below >= -BELOW,
        f"at least {ABOVE:g} point above the student without teacher": above >= ABOVE,
    }
    columns = [
        "network", "learned from", "epochs", "parameters", "test accuracy, mean of both seeds", "points to the teacher",
        "points to the student without teacher", f"{times['longest']['tokens']} tokens",
        f"{times['usual']['tokens']} tokens, the median",
    ]  # fmt: skip
    publish(
        NAME, columns, table, {"student": STUDENT, "teacher": TEACHER, "training": TRAINING, "met": met, "times": times}
    )
    print(met)


def _times(times: Mapping[str, Any], which: str) -> list[str]:
    found = []
    for length in ("longest", "usual"):
        faster = times[length]["teacher"] / times[length][which]
        found.append(f"{times[length][which]:.3f} ms" + (f" ({faster:.2f}× faster)" if which == "student" else ""))
    return found


def _words(choices: Mapping[str, Any]) -> str:
    words = [str(value) for name, value in choices.items() if name in ("signal", "balance")]
    return ", ".join(["labels", *words])


def publish_choices(rows: Rows) -> None:
    """Publishes the accuracies of the choices that were tried, on the messages that were held out."""
    master = rows.get(_key(TEACHER))
    table = [[f"teacher, {DEEP} layers", "labels", TEACHER["epochs"], f"{master['held out']:.2%}", master["seconds"]]]
    for choices in TRIED:
        if rows.has(_key(choices, 0)):
            row, how = rows.get(_key(choices, 0)), {**STUDENT, **choices}
            table.append([
                f"student, {FLAT} layers, {BEGUN[how['start']]}", _words(choices), how["epochs"], f"{row['held out']:.2%}",
                row["seconds"],
            ])  # fmt: skip
    columns = ["network", "learned from", "epochs", "accuracy on the messages held out", "processor seconds"]
    publish(f"{NAME}_choices", columns, table, {"student": STUDENT, "teacher": TEACHER, "training": TRAINING})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="Django's wheel")
    parser.add_argument(
        "--choose", action="store_true", help=f"try signals, balances and starts; judged by {PARTS[1][0]} messages"
    )
    parser.add_argument("--table", action="store_true", help="train nothing, publish what is finished")
    return parser.parse_args()


if __name__ == "__main__":
    main()
