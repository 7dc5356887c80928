"""Estimates how long a run will take and how much it will write, from a few steps measured before it begins."""

import time
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from penjing.errors import PenjingError
from penjing.files import cache_folder
from penjing.graph import Graph
from penjing.loaders import first
from penjing.planning import MeasuredPlan, Solution, read_journal
from penjing.planning.damage.loss_increase import SAMPLES
from penjing.planning.search import TABLE
from penjing.run import stages
from penjing.run.baseline import Baseline
from penjing.run.clock import Clock, Known
from penjing.run.delivery import delivered_names
from penjing.run.request import CompressRequest
from penjing.run.workspace import EarlierContent, read_json
from penjing.tasks import sample_count
from penjing.training.checkpoint import steps_of

EXPORT_SECONDS_PER_NODE = 0.012
CANDIDATES = 8  # widths that a run measures as a rule, where all layers are thinned alike
PLANS = 4  # plans that a run measures as a rule, where each place is chosen by itself
EVALUATIONS = 2.5  # losses, for each layer that multiplies, that are measured for a choice place by place
EDIT_SECONDS_PER_NODE = 0.002  # to carry out the option of which the loss is measured
KERNELS = 12  # sizes, for each layer of its own shape, whose latency is looked up for such a choice
KERNEL_SECONDS = 0.3  # to measure one that no earlier run has measured
MEASURE_SECONDS = 8.0  # seconds for timing a candidate's files
WIDEST = "widest_that_fits"
SECONDS_UNTIL = 10  # minutes: longer times are told without seconds
# The original, the pruned and the recovered graph, a training checkpoint (weights and momentum), the original's lowered
# file, up to three candidates, and two files for the user, all at most as large as the original.
COPIES = 11
BESIDE = 5_000_000  # bytes of all other files together


@dataclass(frozen=True)
class Estimate:
    """The expected time and files of a run.

    Attributes:
        minutes_choose: minutes for measuring the remaining candidates on the target.
        minutes_train: minutes for the remaining training.
        minutes_verify: minutes for judging and measuring the result.
        max_minutes: the user's time limit in minutes; None without one.
        out: the folder of the result.
        files: names of the files in `out` for the user; the stages' own files are in `out/.penjing`.
        bytes_written: upper estimate of the bytes that the run writes.
        finished: names of the stages that are done already.
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
        """Minutes of the whole run, at most the limit."""
        total = self.minutes_choose + self.minutes_train + self.minutes_verify
        return total if self.max_minutes is None else min(total, self.max_minutes)

    @property
    def parts(self) -> tuple[float, float, float]:
        """The minutes to choose, train and verify, all shortened by the same factor to fit the limit."""
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
        whole, (choose, train, verify) = durations(self.parts)
        return (
            f"This will take {whole} ({choose} to measure candidates, {train} to train, {verify} to verify{limit}).\n"
            f"It will write up to {self.bytes_written / 1e6:.0f} MB to {self.out}/: {', '.join(self.files)}, "
            f"and .penjing/ to go on from.{done}"
        )


def estimate(graph: Graph, asked: CompressRequest, held: EarlierContent) -> Estimate:
    """Estimates a run from the times of its earlier call, or else from a few forward passes."""
    done = stages.finished(held, asked.suffixes)
    seconds = {"choose": 0.0, "train": 0.0, "verify": 0.0}
    if "report" not in done:
        seconds["choose"] = 0.0 if "choose" in done else _choosing(graph, asked, held)
        # Until a candidate is chosen, a checkpoint may belong to another candidate.
        trained = held if "choose" in done else replace(held, without=(*held.without, stages.CHECKPOINT))
        seconds["train"] = 0.0 if "recover" in done or _nothing_removed(held) else _training(graph, asked, trained)
        seconds["verify"] = _verifying(graph, asked, held)
    return Estimate(
        **{f"minutes_{name}": value / 60 for name, value in seconds.items()},
        max_minutes=asked.max_minutes,
        out=held.out,
        files=delivered_names(asked.data, asked.suffixes, asked.beside),
        bytes_written=COPIES * graph.cost().weight_bytes + BESIDE,
        finished=done,
    )


def what_follows(graph: Graph, asked: CompressRequest, held: EarlierContent, *, training: bool) -> str:
    """Says, after Ctrl-C, which stages are left and how long they will take.

    Args:
        graph: the original.
        asked: the user's request.
        held: the finished part of the run.
        training: whether training is among the stages left.
    """
    train = _training(graph, asked, held) if training else 0.0
    _, (train_for, verify_for) = durations((train / 60, _verifying(graph, asked, held) / 60))
    parts = [f"training ({train_for})"] if training and asked.training.epochs else []
    parts.append(f"writing and verifying the file ({verify_for})")
    return f"Still to come: {', '.join(parts)}. Ctrl-C again stops; the same command goes on later."


def _choosing(graph: Graph, asked: CompressRequest, held: EarlierContent) -> float:
    """Estimates the seconds to choose a plan, from the plans that were measured before or from the graph's size."""
    measured, rows = len(measured_before(held)), graph.cost().rows
    each = seconds_of_a_width(held) or 2 * len(rows) * EXPORT_SECONDS_PER_NODE + MEASURE_SECONDS
    if asked.solver == WIDEST:
        return each * max(1, CANDIDATES - measured)
    if not asked.budget.limits() or asked.techniques == ("quantize",):  # nothing needs to be removed, or nothing may be
        return each
    layers = [row for row in rows if row.macs]
    loss = SAMPLES * _sample(graph, asked) + EDIT_SECONDS_PER_NODE * len(rows)
    new = asked.budget.limit("latency") is not None and not (cache_folder() / TABLE).exists()
    table = (
        KERNELS * KERNEL_SECONDS * len({(row.op, row.macs, row.params, row.output_shape) for row in layers})
        if new
        else 0.0
    )
    return table + EVALUATIONS * len(layers) * loss + each * max(1, PLANS - measured)


def _sample(graph: Graph, asked: CompressRequest) -> float:
    """Returns the seconds of a forward pass over one training sample; 0 where there is nothing to find it with."""
    loader = asked.data.train if asked.data.train is not None else asked.data.calibration
    if loader is None or not isinstance(loader, Sized) or len(loader) == 0:
        return 0.0
    inputs, _ = asked.data.task.split(first(loader))
    return _pass(graph, loader, asked.data.task) / len(loader) / sample_count(inputs)


def seconds_of_a_width(held: EarlierContent) -> float:
    """Returns the mean seconds that measuring a width took so far; 0 where none was measured."""
    measured = len(measured_before(held))
    return held.seconds.get("choose", 0.0) / measured if measured else 0.0


def _training(graph: Graph, asked: CompressRequest, held: EarlierContent) -> float:
    """Estimates the seconds of the steps left: a step costs about three forward passes, and that of the teacher."""
    data = asked.data
    loader = data.train if data.train is not None else data.calibration
    if asked.training.epochs == 0 or not isinstance(loader, Sized):
        return 0.0
    steps = asked.training.epochs * len(loader)
    if not held.has(stages.CHECKPOINT):
        left = steps
    else:
        step, total = steps_of(held.path(stages.CHECKPOINT)) or (0, steps)
        left = total - step
    return (3 + _teaching(graph, asked)) * _pass(graph, loader, data.task) / max(1, len(loader)) * left


def _teaching(graph: Graph, asked: CompressRequest) -> float:
    """Returns how long the teacher's forward pass takes, in those of the original: by MACs, where they are known."""
    if asked.teacher is None or not asked.teacher.networks:  # the original, or what is as large as the student
        return 1.0
    own = max(1, graph.cost().macs)
    return sum(one.cost().macs / own if isinstance(one, Graph) else 1.0 for one in asked.teacher.networks)


def _verifying(graph: Graph, asked: CompressRequest, held: EarlierContent) -> float:
    """Estimates the seconds of the stages behind training, from times measured with the original or from its size."""
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


def known(held: EarlierContent) -> Known:
    """Returns the times measured with the original; 0 stands for unknown ones."""
    try:
        whole = held.has(stages.BASELINE)
        judging = Baseline.from_dict(read_json(held.path(stages.BASELINE))).seconds if whole else 0.0
    except PenjingError:  # a damaged file: the original is judged again
        whole, judging = False, 0.0
    lowering = max(0.0, held.seconds.get("profile", 0.0) - judging) if whole else 0.0
    widths = measured_before(held)
    first = widths[0][0] if widths and widths[0] else None
    original_ms = first.original_ms if first else None
    return Known(lowering, judging, original_ms / 1000 if original_ms is not None else None)


def _nothing_removed(held: EarlierContent) -> bool:
    """Tells whether the chosen candidate keeps all channels, so that nothing is trained."""
    try:
        chosen = held.has(stages.CHOICE)
        return chosen and not Solution.from_json(read_json(held.path(stages.CHOICE))).taken.structure
    except PenjingError:
        return False


def measured_before(held: EarlierContent) -> list[list[MeasuredPlan]]:
    """Returns the widths that were measured before; none if they can't be read (choosing warns of that)."""
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
    """Returns the times of a whole and of its parts in words, rounded so that the parts add up to the whole."""
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
