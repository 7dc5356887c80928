"""Writes the files beside the lowered model that a user needs to run it: input preparation, output names, a script."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data import Data
from penjing.files import atomic_write
from penjing.graph import Graph
from penjing.targets import find_target, write_runner


def deliver(graph: Graph, data: Data, target: str, out: Path) -> None:
    """Writes `model.penjing`, `plan.json`, `preprocess.json`, `run.py`, and further files.

    Those are the files of `OPTIONAL` that the data fills, and the target's own.
    The lowered model must be there already.
    """
    graph.save(out / "model.penjing")
    graph.plan.write(out / "plan.json")
    prepared = data.preprocess.to_dict() if data.preprocess is not None else None
    atomic_write(out / "preprocess.json", json.dumps(prepared, indent=2))
    write_runner(out, target)
    for name, (attribute, write) in OPTIONAL.items():
        value = getattr(data, attribute)
        if value is None:
            (out / name).unlink(missing_ok=True)  # a file of an earlier run would look like this run's
        else:
            atomic_write(out / name, write(value))
    for write_beside in find_target(target).beside.values():
        write_beside(out)


def take_over(source: Path, out: Path, target: str) -> None:
    """Copies from a finished run how inputs are prepared, names of classes, and samples, into another folder of the same model.

    The target's own files are written again, since they read those.
    """
    for name in ("preprocess.json", *OPTIONAL):
        if (source / name).is_file():
            atomic_write(out / name, (source / name).read_bytes())
    for write_beside in find_target(target).beside.values():
        write_beside(out)


def delivered_names(data: Data, suffixes: Sequence[str], beside: Iterable[str] = ()) -> tuple[str, ...]:
    """Returns the names of all files that a run on this data leaves in its folder.

    Args:
        data: the data.
        suffixes: those of the lowered model's files.
        beside: names of the target's own files, which are made where it is known how inputs are.
    """
    lowered = [f"model{suffix}" for suffix in suffixes]
    always = (*lowered, "report.html", "report.json", "run.py", "model.penjing", "plan.json", "preprocess.json")
    filled = (name for name, (attribute, _) in OPTIONAL.items() if getattr(data, attribute) is not None)
    return (*always, *filled, *(beside if data.preprocess is not None else ()))


def _lines(names: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def _packed(examples: Mapping[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, x=examples["x"], y=examples["y"])
    return content.getvalue()


def _table(files: Sequence[tuple[str, int]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "label"))
    writer.writerows(files)
    return text.getvalue().encode("utf-8", "surrogateescape")  # keeps names that aren't UTF-8 on disk as they are there


# Files that only some data fills, each with the attribute of the data and how it is written. They hold the names of the
# classes, and the samples on which the model was judged: names and labels where the images are files, else the images.
OPTIONAL: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    "classes.txt": ("classes", _lines),
    "validation.csv": ("validation_files", _table),
    "examples.npz": ("examples", _packed),
}
