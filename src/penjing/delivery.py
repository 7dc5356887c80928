"""What is put beside the lowered model, so that it can be used: preparation of inputs, names of outputs, a script."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from penjing.data import Data
from penjing.files import atomic_write
from penjing.graph import Graph
from penjing.targets import write_runner


def deliver(graph: Graph, data: Data, target: str, out: Path) -> None:
    """Writes `model.penjing`, `plan.json`, `preprocess.json`, `classes.txt`, `run.py` and what the model was judged on:
    `validation.csv` (name, label) where the images are files, `examples.npz` where the data holds them itself.
    """
    graph.save(out / "model.penjing")
    atomic_write(out / "plan.json", json.dumps(graph.plan, indent=2))
    prepared = data.preprocess.to_dict() if data.preprocess is not None else None
    atomic_write(out / "preprocess.json", json.dumps(prepared, indent=2))
    if data.classes is not None:
        atomic_write(out / "classes.txt", "".join(f"{name}\n" for name in data.classes))
    write_runner(out, target)
    if data.validation_files is not None:
        atomic_write(out / "validation.csv", _table(data.validation_files))
    if data.examples is not None:
        packed = io.BytesIO()
        np.savez_compressed(packed, x=data.examples["x"], y=data.examples["y"])
        atomic_write(out / "examples.npz", packed.getvalue())


def _table(files: Sequence[tuple[str, int]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "label"))
    writer.writerows(files)
    return text.getvalue().encode("utf-8", "surrogateescape")  # names that aren't UTF-8 on disk aren't here either
