"""The choice: candidates are lowered and measured on the target, the least pruned one that keeps the budget is taken.

Latency is not monotone in width, and integers are not always faster, so nothing here trusts a count of operations.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from penjing.budget import Budget, Limit
from penjing.capabilities import DEFAULT, Capabilities, find
from penjing.damage import refusing
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.files import atomic_write
from penjing.graph import Graph
from penjing.loaders import first
from penjing.plan.widths import Width, widths
from penjing.prune import prune
from penjing.quantize import ConstantActivations, NothingToQuantize, quantize
from penjing.targets import Artifact, find_target, lower, measure_together, profile

log = logging.getLogger(__name__)

MARGIN = 0.95  # a candidate must keep 95 % of a limit, so that the finished model keeps it on a noisy machine too
WORTH = 0.98  # integers stay where they take at most this share of the time in float
RUNS = 300
SECONDS = 6.0
LEAST_SECONDS = 0.5
MEASURING = 0.1  # share of the time until the deadline that timing the files of a width may take
_NONE: tuple[str, ...] = ()


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
        width = (
            f"{self.params:,} parameters, channels in multiples of {self.round_to}"
            if self.round_to
            else "nothing removed"
        )
        return f"{width}, {kind}"

    @classmethod
    def from_dict(cls, record: Any) -> "Candidate":
        """Reads what `asdict` gave.

        Raises:
            PenjingError: it is no candidate.
        """
        if not isinstance(record, dict) or record.keys() != _FIELDS.keys():
            raise PenjingError("it holds no candidates")
        for name, kinds in _FIELDS.items():
            if not isinstance(record[name], kinds) or (isinstance(record[name], bool) and bool not in kinds):
                raise PenjingError(f"a candidate's {name} is {record[name]!r}")
        return cls(**{**record, "in_float": tuple(map(str, record["in_float"]))})


_NUMBER = (int, float)
_FIELDS: dict[str, tuple[type, ...]] = {
    "amount": _NUMBER, "round_to": (int, type(None)), "params": (int,), "integer": (bool,), "in_float": (list, tuple),
    "latency": _NUMBER, "latency_ms": _NUMBER, "size_bytes": (int,), "meets": (bool,),
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        taken: the candidate.
        measured: all that were measured.
        complete: False if Ctrl-C came before the choice was made.
        short_of_time: whether the time was over before one was found that keeps the budget, and others were left to try.
    """

    taken: Candidate
    measured: tuple[Candidate, ...]
    complete: bool = True
    short_of_time: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> "Choice":
        """Reads what `to_dict` gave.

        Raises:
            PenjingError: it is no choice.
        """
        if not isinstance(record, dict) or not isinstance(record.get("measured"), list | tuple):
            raise PenjingError("it holds no choice")
        measured = tuple(map(Candidate.from_dict, record["measured"]))
        taken = Candidate.from_dict(record.get("taken"))
        return cls(taken, measured, record.get("complete") is True, record.get("short_of_time") is True)


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
    units: str
    min_channels: int
    folder: Path
    deadline: float | None

    @property
    def left(self) -> float:
        """Seconds until the deadline, infinite without one."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    @property
    def capabilities(self) -> Capabilities:
        """What the target can do."""
        return find(self.target)

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
    target: str = DEFAULT,
    threads: int = 1,
    batch: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    units: str = "auto",
    min_channels: int = 1,
    deadline: float | None = None,
    longest: float = 0.0,
    journal: Path | None = None,
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
        units: what a unit of attention is; see `prune`.
        min_channels: how many units each group keeps at least.
        deadline: a value of `time.monotonic()`; no further width is tried that would likely end behind it, and where it is
            near, files are timed on fewer calls. The original's width is measured in any case.
        longest: seconds that a width of the journal took; another is expected to take as long.
        journal: a file that keeps what was measured, width by width; what it holds already isn't measured again.
        progress: called with a line about each candidate.

    Returns:
        The choice. If no candidate keeps the budget, the one that comes nearest is taken, and its `meets` is False. After
        Ctrl-C it is the one that comes nearest so far, and the choice isn't complete.

    Raises:
        KeyboardInterrupt: Ctrl-C came before any width was measured.
    """
    scope = (tuple(include), tuple(exclude), units, min_channels)
    bench = _Bench(graph, data, original, budget, target, threads, batch, *scope, folder, deadline)
    folder.mkdir(parents=True, exist_ok=True)
    known = _read(journal, progress)
    if known:
        progress(f"Going on from {len(known)} width{'' if len(known) == 1 else 's'} measured before.")
    measured: list[Candidate] = []
    complete, short = True, False
    if not bench.capabilities.has_integers:
        progress(f"{target} computes nothing in integers, so every candidate is in floating point.")
    multiples = bench.capabilities.channel_multiples
    for width in widths(
        graph, multiples=multiples, include=include, exclude=exclude, units=units, min_channels=min_channels
    ):
        key = (width.amount, width.round_to)
        if key not in known:
            if measured and longest > bench.left:
                progress("The time for measuring candidates is over.")
                short = True
                break
            start = time.monotonic()
            try:
                known[key] = _measure_width(bench, width)
            except KeyboardInterrupt:
                if not measured:
                    raise
                progress(f"Interrupted: going on with the best of the {len(measured)} candidates measured so far.")
                complete = False
                break
            longest = max(longest, time.monotonic() - start)
            _write(journal, known)
        found = known[key]
        for candidate in found:
            progress(f"{candidate}: {candidate.latency:.2f}× the latency, {candidate.size_bytes:,} bytes")
        measured += found
        taken = _preferred(found)
        if taken is not None:
            return Choice(taken, tuple(measured))
    nearest = min(measured, key=lambda candidate: _excess(bench, candidate))
    return Choice(nearest, tuple(measured), complete, short)


Journal = dict[tuple[float, int | None], list[Candidate]]


def _write(journal: Path | None, known: Journal) -> None:
    if journal is not None:
        widths = [[asdict(candidate) for candidate in found] for found in known.values()]
        atomic_write(journal, json.dumps(widths, indent=2))


def _read(journal: Path | None, progress: Callable[[str], None]) -> Journal:
    if journal is None or not journal.exists():
        return {}
    try:
        with refusing("it can't be read"):
            widths = [[Candidate.from_dict(record) for record in found] for found in json.loads(journal.read_text())]
            return {(found[0].amount, found[0].round_to): found for found in widths}
    except PenjingError as damage:
        progress(f"{journal} is damaged ({damage}): all candidates are measured again.")
        return {}


def _preferred(found: Sequence[Candidate]) -> Candidate | None:
    """Of the candidates of one width that keep the budget: the plainest, unless another is worth it by its speed.

    Integers stay only where they are faster than float, or alone in keeping the budget; layers stay in float only where
    that is faster than integers everywhere.
    """
    keeping = [candidate for candidate in found if candidate.meets]
    whole = next((c for c in keeping if c.integer and not c.in_float), None)
    mixed = next((c for c in keeping if c.in_float), None)
    integer = mixed if mixed and (whole is None or mixed.latency <= WORTH * whole.latency) else whole
    plain = next((c for c in keeping if not c.integer), None)
    if plain is None or integer is None:
        return plain or integer
    return integer if integer.latency <= WORTH * plain.latency else plain


def _thinned(bench: _Bench, width: Width) -> Graph:
    if width.round_to is None:
        return bench.graph
    return prune(
        bench.graph, width.amount, round_to=width.round_to, min_channels=bench.min_channels, units=bench.units,
        include=bench.include, exclude=bench.exclude,
    )  # fmt: skip


def _measure_width(bench: _Bench, width: Width) -> list[Candidate]:
    """Measures a width in float and in integers, and in a mixture of both where their profiles promise that it pays."""
    try:
        thin = _thinned(bench, width)
        files = {(False, _NONE): lower(thin, bench.target, bench.file("float"))}
        integers = _quantized(bench, thin, _NONE)
        if integers is not None:
            files[True, _NONE] = lower(integers, bench.target, bench.file("integer"))
        found = _measure(bench, width, thin, files)
        if integers is not None and bench.left > 0:
            slower = _better_in_float(bench, (files[False, _NONE], files[True, _NONE]), found[0], found[1])
            mixed = _quantized(bench, thin, slower) if slower else None
            if mixed is not None:
                files = {(True, slower): lower(mixed, bench.target, bench.file("mixed"))}
                found += _measure(bench, width, thin, files)
        return found
    finally:
        for name in ("float", "integer", "mixed"):
            for file in find_target(bench.target).files(bench.file(name)):
                file.unlink(missing_ok=True)


def _quantized(bench: _Bench, thin: Graph, in_float: tuple[str, ...]) -> Graph | None:
    """Returns the int8 graph, calibrated on little data: that doesn't change the time. None if the target runs nothing in it."""
    if bench.data.calibration is None or not bench.capabilities.has_integers:
        return None
    few = replace(bench.data, calibration=[first(bench.data.calibration, "data.calibration")])
    exclude = (*bench.exclude, *in_float)
    try:
        try:
            return quantize(thin, few, exclude=exclude, corrections=(), target=bench.target)
        except ConstantActivations:  # on so little data
            return quantize(thin, bench.data, exclude=exclude, corrections=(), target=bench.target)
    except NothingToQuantize as nothing:
        log.info("no integer candidate: %s", nothing)
        return None
    except ConstantActivations as dead:
        if thin is bench.graph:
            raise
        log.warning("no integer candidate, since pruning left something dead: %s", dead)
        return None


def _measure(
    bench: _Bench, width: Width, thin: Graph, files: dict[tuple[bool, tuple[str, ...]], Artifact]
) -> list[Candidate]:
    together = {"original": bench.original, **{str(key): file for key, file in files.items()}}
    times = measure_together(
        together, threads=bench.threads, batch=bench.batch, runs=RUNS, memory=False,
        seconds=max(LEAST_SECONDS, min(SECONDS, MEASURING * bench.left)),
    )  # fmt: skip
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
    return found


def _within(limit: Limit | None, value: float, original: float) -> bool:
    return limit is None or value <= MARGIN * limit.of(original)


def _excess(bench: _Bench, candidate: Candidate) -> float:
    """How far a candidate misses the budget: the larger of the two overshoots."""
    original_ms = candidate.latency_ms / candidate.latency
    latency, size = bench.budget.latency_limit(), bench.budget.size_limit()
    return max(
        candidate.latency_ms / latency.of(original_ms) if latency else 0.0,
        candidate.size_bytes / size.of(bench.original.size_bytes) if size else 0.0,
    )


def _better_in_float(
    bench: _Bench, files: tuple[Artifact, Artifact], plain: Candidate, integer: Candidate
) -> tuple[str, ...]:
    """Returns the modules that are slower as integers, if leaving them in float promises a better candidate."""
    as_float, as_integer = (_module_milliseconds(bench, file) for file in files)
    slower = {name: ms - as_float[name] for name, ms in as_integer.items() if ms > as_float.get(name, ms)}
    hoped = 1 - sum(slower.values()) / integer.latency_ms
    fast_enough = _within(
        bench.budget.latency_limit(), hoped * integer.latency_ms, integer.latency_ms / integer.latency
    )
    if hoped > WORTH or hoped * integer.latency > WORTH * plain.latency or not fast_enough:
        return _NONE
    return tuple(slower)


def _module_milliseconds(bench: _Bench, file: Artifact) -> dict[str, float]:
    times: dict[str, float] = {}
    for node in profile(file, bench.threads, bench.batch):
        if node.module and node.macs:
            times[node.module] = times.get(node.module, 0.0) + node.latency_us / 1e3
    return times
