"""How long a run will take, roughly, and what it will write: measured on a few steps before it begins."""

import time
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.loaders import first
from penjing.planning import Candidate, Solution, read_journal
from penjing.run import stages
from penjing.run.baseline import Baseline
from penjing.run.clock import Clock, Known
from penjing.run.delivery import delivered_names
from penjing.run.request import Request
from penjing.run.workspace import Held, read_json
from penjing.training.checkpoint import steps_of

EXPORT_SECONDS_PER_NODE = 0.012
CANDIDATES = 8
MEASURE_SECONDS = 8.0  # for timing a candidate's files
SECONDS_UNTIL = 10  # minutes; what takes longer is told without seconds
# The original, the pruned and the recovered graph, a training checkpoint (weights and momentum), the original's lowered
# file, up to three candidates, and two files for the user, all at most as large as the original; and what stands beside.
COPIES = 11
BESIDE = 5_000_000


@dataclass(frozen=True)
class Estimate:
    """What to expect of a run.

    Attributes:
        minutes_choose: for measuring candidates on the target; less what is measured already.
        minutes_train: for recovery; less what is trained already.
        minutes_verify: for judging and measuring the result.
        max_minutes: the limit that the user set, if any.
        out: where everything is written.
        files: what will be in it, for the user; what stages keep is in `.penjing` beside them.
        bytes_written: about how much, at most.
        finished: stages that are done already.
    """

    minutes_choose: float
    minutes_train: float
    minutes_verify: float
    max_minutes: float | None
    out: Path
    files: tuple[str, ...]
    bytes_written: int
    finished: tuple[str, ...]

    @property
    def minutes(self) -> float:
        """In all."""
        total = self.minutes_choose + self.minutes_train + self.minutes_verify
        return total if self.max_minutes is None else min(total, self.max_minutes)

    def _parts(self) -> tuple[float, float, float]:
        """Returns the minutes to choose, train and verify, shortened alike to the limit: no part exceeds the whole."""
        parts = self.minutes_choose, self.minutes_train, self.minutes_verify
        shrunk = self.minutes / sum(parts) if sum(parts) else 1.0
        return parts[0] * shrunk, parts[1] * shrunk, parts[2] * shrunk

    def __str__(self) -> str:
        done = f"\nFinished already in {self.out}: {', '.join(self.finished)}." if self.finished else ""
        if "report" in self.finished:
            return f"Nothing is left to do.{done}"
        limit = (
            "" if self.max_minutes is None else f", shortened to end within {self.max_minutes:g} min where it can be"
        )
        whole, (choose, train, verify) = durations(self._parts())
        return (
            f"This will take {whole} ({choose} to measure candidates, {train} to train, {verify} to verify{limit}).\n"
            f"It will write up to {self.bytes_written / 1e6:.0f} MB to {self.out}/: {', '.join(self.files)}, "
            f"and .penjing/ to go on from.{done}"
        )


def estimate(graph: Graph, asked: Request, held: Held) -> Estimate:
    """Returns what a run will take and write, from what an earlier call measured of it, or else a few forward passes."""
    done = stages.finished(held, asked.suffixes)
    seconds = {"choose": 0.0, "train": 0.0, "verify": 0.0}
    if "report" not in done:
        seconds["choose"] = 0.0 if "choose" in done else _choosing(graph, held)
        # Until a candidate is chosen, a checkpoint may be of another one.
        trained = held if "choose" in done else replace(held, without=(*held.without, stages.CHECKPOINT))
        seconds["train"] = 0.0 if "recover" in done or _nothing_removed(held) else _training(graph, asked, trained)
        seconds["verify"] = _verifying(graph, asked, held)
    return Estimate(
        **{f"minutes_{name}": value / 60 for name, value in seconds.items()},
        max_minutes=asked.max_minutes,
        out=held.out,
        files=delivered_names(asked.data, asked.suffixes),
        bytes_written=COPIES * graph.cost().weight_bytes + BESIDE,
        finished=done,
    )


def what_follows(graph: Graph, asked: Request, held: Held, *, training: bool) -> str:
    """Says, after Ctrl-C, what still comes and how long it will take.

    Args:
        graph: the original.
        asked: what the user asked for.
        held: what is done.
        training: whether training still comes.
    """
    train = _training(graph, asked, held) if training else 0.0
    _, (train_for, verify_for) = durations((train / 60, _verifying(graph, asked, held) / 60))
    parts = [f"training ({train_for})"] if training and asked.epochs else []
    parts.append(f"writing and verifying the file ({verify_for})")
    return f"Still to come: {', '.join(parts)}. Ctrl-C again stops; the same command goes on later."


def _choosing(graph: Graph, held: Held) -> float:
    """Returns the seconds that measuring candidates will take: as long for each as before, or by the graph's size."""
    measured = len(_widths(held))
    guessed = 2 * len(graph.cost().rows) * EXPORT_SECONDS_PER_NODE + MEASURE_SECONDS
    return (seconds_of_a_width(held) or guessed) * max(1, CANDIDATES - measured)


def seconds_of_a_width(held: Held) -> float:
    """Returns how long measuring each width took so far; 0 where none was measured."""
    measured = len(_widths(held))
    return held.seconds.get("choose", 0.0) / measured if measured else 0.0


def _training(graph: Graph, asked: Request, held: Held) -> float:
    """Returns the seconds of the steps that are left: a step costs about three forward passes, the teacher's is a fourth."""
    data = asked.data
    loader = data.train if data.train is not None else data.calibration
    if asked.epochs == 0 or not isinstance(loader, Sized):
        return 0.0
    steps = asked.epochs * len(loader)
    if not held.has(stages.CHECKPOINT):
        left = steps
    else:
        step, total = steps_of(held.path(stages.CHECKPOINT)) or (0, steps)
        left = total - step
    return 4 * _pass(graph, loader, data.task) / max(1, len(loader)) * left


def _verifying(graph: Graph, asked: Request, held: Held) -> float:
    """Returns the seconds of what follows training, by what was measured of the original, or else by its size."""
    found = known(held)
    data = asked.data
    judged = data.validation if data.validation is not None else data.calibration
    return Clock(minutes=asked.max_minutes).verifying(
        replace(
            found,
            lowering=found.lowering or len(graph.cost().rows) * EXPORT_SECONDS_PER_NODE,
            judging=found.judging or _pass(graph, judged, data.task),
        )
    )


def known(held: Held) -> Known:
    """Returns what is known of the original's times; 0 is what isn't known."""
    try:
        whole = held.has(stages.BASELINE)
        judging = Baseline.from_dict(read_json(held.path(stages.BASELINE))).seconds if whole else 0.0
    except PenjingError:  # judging is done again then
        whole, judging = False, 0.0
    lowering = max(0.0, held.seconds.get("profile", 0.0) - judging) if whole else 0.0
    widths = _widths(held)
    first = widths[0][0] if widths and widths[0] else None
    return Known(lowering, judging, first.latency_ms / first.latency / 1000 if first and first.latency > 0 else None)


def _nothing_removed(held: Held) -> bool:
    """Whether a choice was made of a candidate that keeps all channels, which isn't trained."""
    try:
        chosen = held.has(stages.CHOICE)
        return chosen and not Solution.from_json(read_json(held.path(stages.CHOICE))).taken.structure
    except PenjingError:
        return False


def _widths(held: Held) -> list[list[Candidate]]:
    """Returns the widths that were measured before; none if they can't be read, as choosing says."""
    try:
        return read_journal(held.path(stages.CANDIDATES)) if held.has(stages.CANDIDATES) else []
    except PenjingError:
        return []


def _pass(graph: Graph, loader: Iterable[Any] | None, task: Any) -> float:
    """Returns the seconds of a forward pass over a loader; 0 where its length isn't known."""
    if loader is None or not isinstance(loader, Sized) or len(loader) == 0:
        return 0.0
    inputs, _ = task.split(first(loader))
    times = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            graph(*inputs)
            times.append(time.perf_counter() - start)
    return min(times) * len(loader)


def durations(minutes: Sequence[float]) -> tuple[str, list[str]]:
    """Returns in words how long a whole takes and each of its parts, rounded such that the parts add up to the whole."""
    unit = 10 if sum(minutes) < SECONDS_UNTIL else 60
    until = [round(60 * sum(minutes[:count]) / unit) for count in range(len(minutes) + 1)]
    parts = [
        _in_words((end - begin) * unit, unit, nothing=each == 0)
        for each, begin, end in zip(minutes, until, until[1:], strict=False)
    ]
    whole = until[-1] * unit
    return ("about " if whole else "") + _in_words(whole, unit, nothing=sum(minutes) == 0), parts


def _in_words(seconds: int, unit: int, *, nothing: bool) -> str:
    if seconds == 0:
        return "nothing" if nothing else "a few seconds" if unit == 10 else "under a minute"
    shown = (f"{seconds // 60} min" if seconds >= 60 else "", f"{seconds % 60} s" if seconds % 60 else "")
    return " ".join(filter(None, shown))
