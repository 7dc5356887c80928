"""`penjing.prune`: pruning at once, or in the course of a training."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from penjing.budget import Budget, Drop, parse_drop
from penjing.checks import EPOCHS, FUNCTION, PATH, PROGRESS, RATE, TEXT, checked, optional
from penjing.data import Data
from penjing.distillation.teachers import TAUGHT_BY, TaughtBy
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.pruning import Gradual, PruningSettings, prune_with
from penjing.pruning.allocations import Rounding
from penjing.pruning.doors import RULES
from penjing.pruning.schedules import ChosenSchedule, find
from penjing.training import recover
from penjing.verbs._metric import least, metric_of


@checked(
    **RULES,
    schedule=TEXT,
    epochs=optional(EPOCHS),
    teacher=TAUGHT_BY,
    lr=RATE,
    checkpoint=optional(PATH),
    progress=PROGRESS,
    log=optional(FUNCTION),
)
def prune(
    graph: Graph,
    amount: float | Mapping[str, float] | None = None,
    *,
    criterion: str = "l2",
    granularity: str = "filter",
    allocation: str = "uniform",
    schedule: str = "one_shot",
    round_to: Rounding = None,
    min_channels: int = 1,
    units: str = "auto",
    data: Data | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    batches: int = 16,
    seed: int = 0,
    epochs: int | None = None,
    drop: float | str | None = None,
    teacher: TaughtBy = None,
    lr: float | None = None,
    checkpoint: Path | str | None = None,
    progress: bool | Literal["always"] = True,
    log: Callable[[str], None] | None = None,
) -> Graph:
    """Returns a smaller or sparser copy of a graph. Its outputs keep their shapes, and `graph` stays as it was.

    The granularity decides what goes: "filter" removes channels, "head" heads of attention, "layer" residual branches, and
    "pattern" and "rectangle" positions of kernels, which get smaller. All other granularities keep the shapes and set
    weights to zero; `graph.masks` holds these at zero in further training. Everything goes at once and without training,
    unless `schedule` or `epochs` say otherwise.

    Args:
        graph: a captured graph.
        amount: share of the units to remove, 0 ≤ amount < 1; the share of each group's units with the uniform allocation.
            With `granularity="layer"` it is the share of the residual branches; with granularities that set weights to
            zero, the share of each layer's weights, including those that earlier masks hold at zero. None where the name
            of the granularity or the allocation says the amount, as "2:4", "rectangle:1x3" and "threshold:0.01" do. With
            `allocation="plan"`, a share for each place, by the place's name.
        criterion: the measure of how much a unit matters, a name in `penjing list criteria`.
        granularity: which weights stand or fall together, a name in `penjing list granularities`.
        allocation: how the amount is spread over the model, a name in `penjing list allocations`.
        schedule: when units or weights go, a name in `penjing list schedules`; all but "one_shot" train meanwhile.
        round_to: keep multiples of this many units (or a function from a wanted to an allowed number); at least one
            step stays, and a group smaller than one step stays whole.
        min_channels: how many units each group keeps at least; a smaller group stays whole.
        units: what a unit of attention is, "heads", "features" or "auto"; see `channels`.
        data: the data that the criterion and the allocation look at, where they need it, and the data to train on.
        include: patterns of module paths; if given, only channels and weights of matching modules are pruned. Channels with
            a fixed meaning, such as the classes of a softmax, go only where their module is named here in full; see
            `channels`.
        exclude: patterns of module paths whose channels, and whose layers, all stay.
        batches: how many batches of data the criterion looks at.
        seed: seed of the criteria that draw random numbers or shuffled data, of the schedule's draws, and of the training.
        epochs: passes over `data.train` in each training of the schedule; "iterative" and "rewind" have several trainings.
            With "one_shot", passes of the training that follows the pruning.
        drop: how far the metric on `data.validation` may fall with "iterative": 0.01, or "2%" of it, see `Budget`. Without
            labels, the agreement with `graph` takes the metric's place.
        teacher: a model to learn from while training, often the original, or several; see `recover`.
        lr: the peak learning rate of the training; see `recover`.
        checkpoint: a file in which the training keeps its state, to resume from after any stop. With several trainings, a
            file for each, with the training's number in its name.
        progress: a progress bar of the training when stderr is a terminal; "always" anywhere, False never.
        log: called with lines that a user may want to read; by default the loggers "penjing.prune" and "penjing.train".

    Returns:
        The pruned graph. Its `plan` says what went, what was skipped, and where the amount asked for more than could go,
        because the last units of a place stay.

    Raises:
        PenjingError: an unknown name, an amount out of range, data or a training budget that is missing, a model in which
            nothing can be removed, or a score that isn't a number.
        Interrupted: Ctrl-C while training.
    """
    settings = PruningSettings(
        amount, criterion, granularity, allocation, round_to, min_channels, units, include, exclude, batches, seed
    )
    chosen = find(schedule)
    if "training" not in chosen.entry.needs and epochs is None:
        for name, value in {"drop": drop, "teacher": teacher, "lr": lr, "checkpoint": checkpoint}.items():
            if value is not None:
                raise PenjingError(f"{name}= is for a training, and schedule='{schedule}' has none without epochs=….")
        return prune_with(graph, data, settings)
    allowed = parse_drop(Budget(drop=drop).drop)
    data, epochs = _budget(chosen, data, teacher, epochs, allowed)
    how: dict[str, Any] = {
        "teacher": teacher, "epochs": epochs, "lr": lr, "seed": seed, "progress": progress, "log": log,
    }  # fmt: skip
    if "training" not in chosen.entry.needs:
        return recover(prune_with(graph, data, settings), data, checkpoint=checkpoint, **how)

    pruning = Gradual(graph, schedule=schedule, data=data, log=log, **settings.arguments())
    told = log or logging.getLogger("penjing.prune").info
    limit = None if allowed is None else least(graph, data, allowed, told)
    for turn in range(pruning.trainings):
        before = None if limit is None else pruning.snapshot()
        pruning.begin(turn)
        file = None if checkpoint is None else _numbered(Path(checkpoint), turn, pruning.trainings)
        recover(pruning.graph, data, checkpoint=file, callbacks=[pruning], penalty=pruning.penalty, **how)
        if limit is not None and before is not None:
            metric = metric_of(pruning.graph, graph, data)
            told(f"Round {turn + 1} of {pruning.trainings}: the metric is {metric:.4g}, the limit {limit:.4g}.")
            if metric < limit:
                pruning.go_back(before)
                break
    return pruning.finish()


def _budget(
    schedule: ChosenSchedule, data: Data | None, teacher: TaughtBy, epochs: int | None, drop: Drop | None
) -> tuple[Data, int]:
    """Returns the data to train on and the number of epochs, once they are checked to be there.

    Raises:
        PenjingError: an argument is missing, or is one that the schedule doesn't use; the error names it.
    """
    trains = f"schedule='{schedule.name}' trains"
    if epochs is None or epochs < 1:
        raise PenjingError(f"{trains}: pass epochs=…, the passes over data.train, at least 1 (not {epochs}).")
    if data is None or (data.train is None and (teacher is None or data.calibration is None)):
        raise PenjingError(
            f"{trains}: pass data=… with train=, a loader of training batches, or with calibration= and a teacher=…."
        )
    measures = "validation" in schedule.entry.needs
    if measures and drop is None:
        raise PenjingError(f"{trains} until the metric has fallen: pass drop=…, by how much it may.")
    if measures and data.validation is None:
        raise PenjingError(f"{trains} until the metric has fallen: pass data=… with validation=, to measure it on.")
    if not measures and drop is not None:
        raise PenjingError(f"drop= is for schedule='iterative'; schedule='{schedule.name}' measures nothing.")
    return data, epochs


def _numbered(file: Path, number: int, trainings: int) -> Path:
    return file if trainings == 1 else file.with_stem(f"{file.stem}-{number + 1}")
