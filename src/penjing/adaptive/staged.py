"""Lowered stages: written into a folder, run one behind the other until one is sure, and measured beside the whole network."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penjing.adaptive.exits import Exits
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.files import atomic_write
from penjing.targets import Artifact, find_target, lower, measure_together, write_runner
from penjing.tasks import each_input, rows_of, sample_count

WHOLE, STAGES = "whole", "stages.json"
WARM = 5  # calls before the first that is timed
REPEATS = 5  # timed calls of each sample, of which the median counts: what else a machine does disturbs few of them


@dataclass(frozen=True)
class StagedLatency:
    """What early exits gain on real samples, one at a time.

    Attributes:
        whole_mean_ms: mean milliseconds of the whole network.
        whole_p90_ms: of nine in ten samples, at most this many.
        mean_ms: mean milliseconds with early exits.
        p90_ms: of nine in ten samples, at most this many.
        metric: of the answers with early exits, on these samples.
        whole_metric: of the whole network's answers, on the same samples.
        shares: of the samples that left at each exit and at the end.
        samples: their number.
    """

    whole_mean_ms: float
    whole_p90_ms: float
    mean_ms: float
    p90_ms: float
    metric: float
    whole_metric: float
    shares: tuple[float, ...]
    samples: int

    @property
    def speedup(self) -> float:
        """How many times the mean latency is lower with early exits."""
        return self.whole_mean_ms / self.mean_ms

    def __str__(self) -> str:
        left = ", ".join(f"{share:.0%}" for share in self.shares)
        return (
            f"mean {self.mean_ms:.3g} ms instead of {self.whole_mean_ms:.3g} ({self.speedup:.2f}×), p90 {self.p90_ms:.3g} ms "
            f"instead of {self.whole_p90_ms:.3g}; metric {self.metric:.4f} instead of {self.whole_metric:.4f} on "
            f"{self.samples} samples, which left at {left}"
        )


def lower_stages(exits: Exits, target: str, folder: Path, data: Data | None = None) -> list[Artifact]:
    """Writes one file for each stage; with data also what `run.py` needs, and this script. See `Exits.lower`.

    Raises:
        PenjingError: what `penjing.lower` raises, or `data` is given and there is no such script for the target.
    """
    chosen = find_target(target)
    if data is not None and chosen.staged_runner is None:
        raise PenjingError(
            f"There is no run.py of stages for '{target}': leave data out, to get the files alone, or lower for 'onnxruntime'."
        )
    files = [lower(stage, target, folder / f"stage-{k}{chosen.suffix}") for k, stage in enumerate(exits.stages(), 1)]
    if data is None:
        return files
    said = {"threshold": exits.threshold, "stages": [one.path.name for one in files]}
    prepared = data.preprocess.to_dict() if data.preprocess is not None else None
    atomic_write(folder / STAGES, json.dumps(said, indent=2))
    atomic_write(folder / "preprocess.json", json.dumps(prepared, indent=2))
    if data.classes is not None:
        atomic_write(folder / "classes.txt", "".join(f"{name}\n" for name in data.classes).encode())
    write_runner(folder, target, template=chosen.staged_runner)
    return files


def stage_latencies(exits: Exits, target: str, folder: Path, threads: int = 1) -> list[float]:
    """Returns the measured milliseconds from the inputs to each exit, and to the end of the last stage, at batch 1."""
    files = {str(k): artifact for k, artifact in enumerate(lower_stages(exits, target, folder))}
    measured = measure_together(files, threads=threads, memory=False)
    return np.cumsum([measured[name].latency_ms.median for name in files]).tolist()


def measure_staged(
    exits: Exits, data: Data, target: str, folder: Path, *, threads: int = 1, samples: int = 1000
) -> StagedLatency:
    """Times both ways on the same samples; see `Exits.measure`.

    Raises:
        PenjingError: there is no validation data, or what `penjing.lower` raises.
    """
    whole = lower(exits.whole(), target, folder / f"{WHOLE}{find_target(target).suffix}")
    stages = lower_stages(exits, target, folder)
    one, many = _Line([whole], None, threads), _Line(stages, exits.threshold, threads)
    metrics, places = (data.task.metric(), data.task.metric()), list[int]()
    times: tuple[list[float], list[float]] = ([], [])  # of each sample
    for inputs, targets in _samples(data, samples):
        arrays = [value.numpy() for value in inputs]
        for line in (one, many) if not places else ():
            line.warm_up(arrays)
        rounds: tuple[list[float], list[float]] = ([], [])
        made = {}
        for turn in range(REPEATS):
            for which, line in ((0, one), (1, many)) if turn % 2 else ((1, many), (0, one)):
                start = time.perf_counter()
                made[which] = line.run(arrays)
                rounds[which].append(1000 * (time.perf_counter() - start))
        for which in (0, 1):
            times[which].append(float(np.median(rounds[which])))
            metrics[which].update(torch.from_numpy(made[which][0]), targets)
        places.append(made[1][1])
    counts = np.bincount(places, minlength=len(stages)) / len(places)
    return StagedLatency(
        float(np.mean(times[0])), float(np.percentile(times[0], 90)), float(np.mean(times[1])),
        float(np.percentile(times[1], 90)), float(metrics[1].compute()), float(metrics[0].compute()),
        tuple(counts.tolist()), len(places),
    )  # fmt: skip


class _Line:
    """Loaded stages that run one behind the other."""

    def __init__(self, files: Sequence[Artifact], threshold: float | None, threads: int) -> None:
        target = find_target(files[0].target)
        self._sessions = [(file, target.session(file, threads)) for file in files]
        self._threshold = threshold

    def warm_up(self, values: Sequence[np.ndarray]) -> None:
        """Runs all stages some times, whatever they are sure of."""
        threshold, self._threshold = self._threshold, None
        for _ in range(WARM):
            self.run(values)
        self._threshold = threshold

    def run(self, values: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
        """Returns the logits of one sample, and the position of the stage that gave them."""
        for place, (file, session) in enumerate(self._sessions):
            named = {spec.name: value for spec, value in zip(file.inputs, values, strict=True)}
            logits, *values = session.run(named)
            if place == len(self._sessions) - 1 or (self._threshold is not None and sure(logits) >= self._threshold):
                break
        return logits, place


def sure(logits: np.ndarray) -> float:
    """Returns the largest probability of the softmax of one sample's logits, `(1, classes)`, rounded as `confidence` does."""
    wide = logits[0].astype(np.float64)
    return float(np.float32(1 / np.exp(wide - wide.max()).sum()))


def _samples(data: Data, most: int) -> Iterator[tuple[Any, Any]]:
    """Yields validation samples one at a time with their targets, spread over the data, which may be sorted by class.

    Raises:
        PenjingError: there is no validation data.
    """
    if data.validation is None:
        raise PenjingError("Early exits are measured on data.validation, which is None.")
    sizes = [sample_count(data.task.split(batch)[0]) for batch in data.validation]
    chosen = set(np.linspace(0, sum(sizes) - 1, min(most, sum(sizes))).round().astype(int).tolist())
    seen = 0
    for batch, size in zip(data.validation, sizes, strict=True):
        inputs, targets = data.task.split(batch)
        for row in range(size):
            if seen + row in chosen:
                yield each_input(inputs, itemgetter(slice(row, row + 1))), rows_of(targets, [row])
        seen += size
