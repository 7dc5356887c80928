"""The choice: candidates are lowered and measured on the target, the least pruned one that keeps the budget is taken.

Latency is not monotone in width, and integers are not always faster, so nothing here trusts a count of operations.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penjing.budget import Budget
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.plan.widths import Width, widths
from penjing.prune import prune
from penjing.quantize import quantize
from penjing.targets import Artifact, find_target, lower, measure_together, profile

log = logging.getLogger(__name__)

MARGIN = 0.95  # a candidate must keep 95 % of a limit, so that the finished model keeps it on a noisy machine too
WORTH = 0.98  # integers stay where they take at most this share of the time in float
RUNS = 300
SECONDS = 6.0


@dataclass(frozen=True)
class Candidate:
    """One way to compress, and what it costs on the target.

    Attributes:
        amount: share of the units removed.
        round_to: multiple of units that groups keep; None where nothing is removed.
        params: parameters that are left.
        integer: whether layers are quantised to int8.
        in_float: modules that stay in float although the rest is integer.
        latency: latency over the original's, measured side by side.
        latency_ms: median latency.
        size_bytes: of the lowered file.
        meets: whether it keeps the budget's latency and size, with the margin.
    """

    amount: float
    round_to: int | None
    params: int
    integer: bool
    in_float: tuple[str, ...]
    latency: float
    latency_ms: float
    size_bytes: int
    meets: bool

    def __str__(self) -> str:
        kind = "int8" if self.integer else "float"
        kind += f" with {len(self.in_float)} layers in float" if self.in_float else ""
        width = f"{self.params:,} parameters in steps of {self.round_to}" if self.round_to else "nothing removed"
        return f"{width}, {kind}"


@dataclass(frozen=True)
class Choice:
    """The candidate taken, and all that were measured."""

    taken: Candidate
    measured: tuple[Candidate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Choice":
        """Reads what `to_dict` gave."""

        def candidate(values: dict[str, Any]) -> Candidate:
            return Candidate(**{**values, "in_float": tuple(values["in_float"])})

        return cls(candidate(record["taken"]), tuple(map(candidate, record["measured"])))


@dataclass(frozen=True)
class _Bench:
    """All that measuring a candidate needs."""

    graph: Graph
    data: Data
    original: Artifact
    budget: Budget
    target: str
    threads: int
    batch: int
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    folder: Path

    def file(self, name: str) -> Path:
        """Where a candidate of that name is written."""
        return self.folder / f"{name}{find_target(self.target).suffix}"


def choose(
    graph: Graph,
    data: Data,
    original: Artifact,
    budget: Budget,
    folder: Path,
    *,
    target: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    deadline: float | None = None,
    progress: Callable[[str], None] = log.info,
) -> Choice:
    """Measures candidates from the widest to the narrowest and returns the first that keeps the budget.

    Args:
        graph: the original.
        data: its calibration set gives ranges for the integer candidates; accuracy plays no part here.
        original: the original, lowered; every candidate is measured side by side with it.
        budget: limits on latency and size.
        folder: where candidates are written; they are removed again.
        target: name of the runtime.
        threads: threads within an op.
        batch: samples per call.
        include: patterns of module paths; only these are pruned.
        exclude: patterns of module paths that are neither pruned nor quantised.
        deadline: a value of `time.monotonic()` after which no further width is tried.
        progress: called with a line about each candidate.

    Returns:
        The choice. If no candidate keeps the budget, the one that comes nearest is taken, and its `meets` is False.
    """
    bench = _Bench(graph, data, original, budget, target, threads, batch, tuple(include), tuple(exclude), folder)
    folder.mkdir(parents=True, exist_ok=True)
    measured: list[Candidate] = []
    for width in widths(graph, include=include, exclude=exclude):
        pair = _measure_width(bench, width)
        for candidate in pair:
            progress(f"{candidate}: {candidate.latency:.2f}× the latency, {candidate.size_bytes:,} bytes")
        measured += pair
        taken = _preferred(pair)
        if taken is not None:
            taken = _keep_slow_layers_in_float(bench, width, taken, progress)
            return Choice(taken, (*measured, taken) if taken not in measured else tuple(measured))
        if deadline is not None and time.monotonic() > deadline:
            progress("The time for measuring candidates is over.")
            break
    return Choice(min(measured, key=lambda candidate: _excess(bench, candidate)), tuple(measured))


def _preferred(pair: Sequence[Candidate]) -> Candidate | None:
    """Of a float and an integer candidate that keep the budget: the integer one only where it is faster, or alone."""
    keeping = [candidate for candidate in pair if candidate.meets]
    plain = next((candidate for candidate in keeping if not candidate.integer), None)
    integer = next((candidate for candidate in keeping if candidate.integer), None)
    if plain is None or integer is None:
        return plain or integer
    return integer if integer.latency <= WORTH * plain.latency else plain


def _thinned(bench: _Bench, width: Width) -> Graph:
    if width.round_to is None:
        return bench.graph
    return prune(bench.graph, width.amount, round_to=width.round_to, include=bench.include, exclude=bench.exclude)


def _measure_width(bench: _Bench, width: Width) -> list[Candidate]:
    thin = _thinned(bench, width)
    files = {False: lower(thin, bench.target, bench.file("float"))}
    integers = _quantized(bench, thin, ())
    if integers is not None:
        files[True] = lower(integers, bench.target, bench.file("integer"))
    return _measure(bench, width, thin, {(integer, ()): file for integer, file in files.items()})


def _quantized(bench: _Bench, thin: Graph, in_float: tuple[str, ...]) -> Graph | None:
    """Returns the int8 graph, calibrated on little data: ranges don't change the time. None if nothing is quantisable."""
    calibration = bench.data.calibration or bench.data.validation or bench.data.train
    if calibration is None:
        return None
    few = Data(None, [next(iter(calibration))], None, bench.data.task)
    try:
        return quantize(thin, few, exclude=(*bench.exclude, *in_float))
    except PenjingError as error:
        log.info("no integer candidate: %s", error)
        return None


def _measure(
    bench: _Bench, width: Width, thin: Graph, files: dict[tuple[bool, tuple[str, ...]], Artifact]
) -> list[Candidate]:
    together = {"original": bench.original, **{str(key): file for key, file in files.items()}}
    times = measure_together(
        together, threads=bench.threads, batch=bench.batch, runs=RUNS, seconds=SECONDS, memory=False
    )
    before = times["original"]
    found = []
    for (integer, in_float), file in files.items():
        after = times[str((integer, in_float))]
        ratio = after.latency_ms.median / before.latency_ms.median
        meets = _within(bench.budget.latency_limit(), after.latency_ms.median, before.latency_ms.median) and _within(
            bench.budget.size_limit(), file.size_bytes, bench.original.size_bytes
        )
        found.append(
            Candidate(
                width.amount,
                width.round_to,
                thin.cost().params,
                integer,
                in_float,
                ratio,
                after.latency_ms.median,
                file.size_bytes,
                meets,
            )
        )
        file.path.unlink()
    return found


def _within(limit: Any, value: float, original: float) -> bool:
    return limit is None or value <= MARGIN * limit.of(original)


def _excess(bench: _Bench, candidate: Candidate) -> float:
    """How far a candidate misses the budget: the larger of the two overshoots."""
    original_ms = candidate.latency_ms / candidate.latency
    latency, size = bench.budget.latency_limit(), bench.budget.size_limit()
    return max(
        candidate.latency_ms / latency.of(original_ms) if latency else 0.0,
        candidate.size_bytes / size.of(bench.original.size_bytes) if size else 0.0,
    )


def _keep_slow_layers_in_float(
    bench: _Bench, width: Width, taken: Candidate, progress: Callable[[str], None]
) -> Candidate:
    """Tries the integer candidate with those layers in float that the profile shows slower as integers."""
    if not taken.integer:
        return taken
    thin = _thinned(bench, width)
    integers = _quantized(bench, thin, ())
    if integers is None:
        return taken
    slower = _slower_as_integers(bench, thin, integers)
    if not slower:
        return taken
    mixed = _quantized(bench, thin, slower)
    if mixed is None:
        return taken
    files = {
        (True, ()): lower(integers, bench.target, bench.file("integer")),
        (True, slower): lower(mixed, bench.target, bench.file("mixed")),
    }
    whole, part = _measure(bench, width, thin, files)
    progress(f"{part}: {part.latency:.2f}× the latency, where all integers take {whole.latency:.2f}×")
    return part if part.meets and part.latency <= WORTH * whole.latency else taken


def _slower_as_integers(bench: _Bench, thin: Graph, integers: Graph) -> tuple[str, ...]:
    def seconds(graph: Graph, name: str) -> dict[str, float]:
        artifact = lower(graph, bench.target, bench.file(name))
        times: dict[str, float] = {}
        for node in profile(artifact, bench.threads, bench.batch):
            if node.module and node.macs:
                times[node.module] = times.get(node.module, 0.0) + node.latency_us
        artifact.path.unlink()
        return times

    plain, integer = seconds(thin, "plain"), seconds(integers, "integer")
    return tuple(module for module, time in integer.items() if time > plain.get(module, float("inf")))
