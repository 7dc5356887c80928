"""The whole flow on one page: capture, profile, choose, recover, quantise, lower, verify, report."""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from penjing import report
from penjing.budget import Budget
from penjing.data import Data
from penjing.delivery import deliver
from penjing.errors import PenjingError
from penjing.estimate import Estimate, estimate
from penjing.files import sha256
from penjing.graph import Graph, capture, channels, load
from penjing.plan import Choice, choose
from penjing.prune import criteria, prune
from penjing.quantize import quantize
from penjing.targets import find_target, lower, open_artifact
from penjing.tasks import evaluate
from penjing.train import Interrupted, recover
from penjing.train.checkpoint import digest
from penjing.verification import Pair, environment, metric_on_runtime, verify
from penjing.workspace import Workspace, read_json, write_json

RESERVE = 0.15  # share of a time limit that is kept for what follows training
CHOOSING = 0.4  # share of a time limit after which no further candidate is measured
FINISHED = "finished.json"
CALIBRATION_BATCHES = 8  # taken from another part of data that has no calibration part


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        graph: the compressed graph.
        report: what `report.json` holds.
        out: the folder with everything.
    """

    graph: Graph
    report: dict[str, Any]
    out: Path

    @property
    def met(self) -> bool:
        """Whether every limit of the budget was kept, as measured."""
        return bool(self.report["met"])

    @property
    def headline(self) -> str:
        """One sentence: how much faster, how much smaller, at what loss, on what."""
        return str(self.report["headline"])


def compress(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    data: Data,
    target: str = "onnxruntime",
    budget: Budget | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    out: Path | str = "out",
    epochs: int = 5,
    criterion: str | None = None,
    lr: float | None = None,
    threads: int = 1,
    batch: int = 1,
    seed: int = 0,
    max_minutes: float | None = None,
    dry_run: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print,
    inputs: Mapping[str, str] | None = None,
) -> Result | Estimate:
    """Makes a trained model small and fast on a target, and measures what came out.

    Killed at any moment, the same call continues from the last finished stage. Ctrl-C during training finishes the run
    with the weights so far; the same call then goes on training.

    Args:
        model: a trained model, or a captured graph.
        example_inputs: inputs as the model is called; not needed for a graph.
        data: what to calibrate, train and judge on.
        target: the runtime; see `penjing targets`.
        budget: limits on latency, size and the metric's fall.
        include: patterns of module paths; only these are pruned.
        exclude: patterns of module paths whose output channels all stay and which compute in float.
        out: the folder for everything that is written; new, empty, or of the same run.
        epochs: passes over the training data to recover; 0 trains nothing.
        criterion: how channels are ranked; by default "taylor" with labelled training data, else "l2".
        lr: peak learning rate of the recovery.
        threads: threads of the runtime.
        batch: batch size at which latency is measured.
        seed: of everything random.
        max_minutes: a bound on the time of the whole run.
        dry_run: only say how long it would take and what it would write.
        progress: show a progress bar while training.
        say: called with lines for the user.
        inputs: hashes of the files that the model came from, for the report's provenance.

    Returns:
        The result; an estimate for a dry run.

    Raises:
        PenjingError: bad input; nothing is half-written then.
    """
    began = time.monotonic()
    budget = budget or Budget()
    find_target(target)
    _check_numbers(epochs=epochs, threads=threads, batch=batch, lr=lr, max_minutes=max_minutes)
    criterion = _criterion(criterion, data)
    given = capture_or_take(model, example_inputs)
    channels(given, include=include, exclude=exclude)  # patterns that match nothing are told before anything is written
    data = _with_calibration(data)
    _check_task(given, data)
    expected = estimate(given, data, epochs, Path(out))
    say(str(expected))
    if dry_run:
        return expected
    settings = {
        "model": weights_hash(given),
        "data": data.identity(),
        "target": target,
        "budget": asdict(budget),
        "include": list(include),
        "exclude": list(exclude),
        "epochs": epochs,
        "criterion": criterion,
        "lr": lr,
        "threads": threads,
        "batch": batch,
        "seed": seed,
        "max_minutes": max_minutes,
    }
    space = Workspace(out, settings)
    suffix = find_target(target).suffix
    products = (
        space.inner / FINISHED,
        space.out / "report.json",
        space.out / "model.penjing",
        space.out / f"model{suffix}",
    )
    if all(path.is_file() for path in products):
        say(f"{out} holds this run, finished.")
        return Result(load(space.out / "model.penjing"), report.read(space.out), space.out)
    products[0].unlink(missing_ok=True)

    original = space.stage("capture", "original.penjing", lambda: given, Graph.save, load)
    original_file = space.stage(
        "profile", f"original{suffix}", lambda: None, lambda _, path: lower(original, target, path), lambda _: None
    ) or open_artifact(space.inner / f"original{suffix}", target)
    baseline = space.stage(
        "profile", "baseline.json", lambda: metric_on_runtime(original_file, data, threads), write_json, read_json
    )
    say(f"The original: {original.cost().params:,} parameters" + _metric(data, baseline))

    limit = math.inf if max_minutes is None else 60 * max_minutes
    deadline = None if max_minutes is None else began + limit * (1 - RESERVE)
    choice = space.stage(
        "choose",
        "choice.json",
        lambda: choose(
            original, data, original_file, budget, space.inner / "candidates", target=target, threads=threads,
            batch=batch, include=include, exclude=exclude,
            deadline=began + limit * CHOOSING, progress=lambda line: say(f"  {line}"),
        ),
        lambda made, path: write_json(made.to_dict(), path),
        lambda path: Choice.from_dict(read_json(path)),
    )  # fmt: skip
    taken = choice.taken
    say(f"Chosen: {taken}: {taken.latency:.2f}× the original's latency.")

    def thin() -> Graph:
        if taken.round_to is None:
            return copy.deepcopy(original)
        return prune(
            original, taken.amount, criterion=criterion, round_to=taken.round_to, data=data,
            include=include, exclude=exclude, seed=seed,
        )  # fmt: skip

    small = space.stage("prune", "pruned.penjing", thin, Graph.save, load)
    small, notes, finished = _recovered(
        space, small, original, data, epochs, lr, seed, deadline, progress, taken.amount > 0, say
    )

    with space.timed("quantise"):
        if taken.integer:
            small = quantize(small, data, exclude=[*exclude, *taken.in_float])
    with space.timed("lower"):
        small_file = lower(small, target, space.out / f"model{suffix}")
        deliver(small, data, target, space.out)
    with space.timed("verify"):
        measured = verify(
            Pair(original, original_file, small, small_file), data, budget,
            threads=threads, batch=batch, baseline_metric=baseline,
        )  # fmt: skip
    result = _reported(space, small, measured, budget, choice, notes, settings, inputs or {})
    if finished:
        write_json(True, space.inner / FINISHED)
    return result


def capture_or_take(model: nn.Module, example_inputs: Any) -> Graph:
    """Returns the model as a graph: captured, or itself if it is one."""
    if isinstance(model, Graph):
        return model
    if example_inputs is None:
        raise PenjingError("compress needs example_inputs for an nn.Module, as the model is called.")
    return capture(model, example_inputs)


def weights_hash(graph: Graph) -> str:
    """Returns a hash of all tensors of a graph and of its ops."""
    return hashlib.sha256((graph.program.code + digest(graph.tensors())).encode()).hexdigest()[:16]


def _with_calibration(data: Data) -> Data:
    """Returns data that has a calibration part: its own, or a few batches of another part."""
    if data.calibration is not None:
        return data
    other = data.validation if data.validation is not None else data.train
    if other is None:
        raise PenjingError("The data is empty: give at least one of train, calibration and validation.")
    return replace(data, calibration=list(islice(other, CALIBRATION_BATCHES)))


def _check_task(graph: Graph, data: Data) -> None:
    """Judges one batch with the original, so that outputs that don't fit the data are told before anything is written."""
    loader = data.validation if data.validation is not None else data.calibration
    assert loader is not None
    batch = next(iter(loader), None)
    if batch is None:
        raise PenjingError(f"The data {data.name} has no batches to judge the model on.")
    try:
        evaluate(graph, [batch], data.task)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise PenjingError(
            f"The model's outputs don't fit the data {data.name} and its task: {error}. "
            "Does the model have as many outputs as the data has classes?"
        ) from error


def _check_numbers(*, epochs: int, threads: int, batch: int, lr: float | None, max_minutes: float | None) -> None:
    for name, number, least in (("epochs", epochs, 0), ("threads", threads, 1), ("batch", batch, 1)):
        if number < least:
            raise PenjingError(f"{name}={number!r}: it must be {least} or more.")
    for name, amount in (("lr", lr), ("max_minutes", max_minutes)):
        if amount is not None and not 0 < amount < math.inf:
            raise PenjingError(f"{name}={amount!r}: it must be more than 0.")


def _criterion(name: str | None, data: Data) -> str:
    if name is None:
        return "taylor" if data.task.labelled and data.train is not None else "l2"
    unlabelled = not data.task.labelled or (data.train is None and data.calibration is None)
    if unlabelled and criteria[name].needs & {"labels", "gradients"}:
        raise PenjingError(f"The criterion '{name}' needs labelled data, and {data.name} has none; 'l2' needs no data.")
    return name


def _metric(data: Data, value: float | None) -> str:
    return "." if value is None else f", {data.task.metric_name} {value:.4f}."


def _recovered(
    space: Workspace,
    small: Graph,
    original: Graph,
    data: Data,
    epochs: int,
    lr: float | None,
    seed: int,
    deadline: float | None,
    progress: bool,
    pruned: bool,
    say: Callable[[str], None],
) -> tuple[Graph, list[str], bool]:
    """Trains what was pruned, with the original as teacher. Then: notes for the report, and whether it is finished.

    An interrupted training leaves no finished stage behind, only its checkpoint; so the next call goes on with it.
    """
    path = space.inner / "recovered.penjing"
    if path.exists():
        return load(path), [], True
    if not pruned or epochs == 0 or (data.train is None and data.calibration is None):
        why = "nothing was removed" if not pruned else "no epochs were asked for" if epochs == 0 else "there is no data"
        return small, [f"Not trained: {why}."], True
    notes: list[str] = []

    def log(line: str) -> None:
        say(line)
        if deadline is not None:  # then they tell how the training was shortened to fit
            notes.append(line)

    with space.timed("recover"):
        try:
            recover(
                small, data, teacher=original, epochs=epochs, lr=lr, seed=seed, deadline=deadline,
                checkpoint=space.inner / "recover.checkpoint", progress=progress, log=log,
                report=lambda e: say(f"  epoch {e['epoch']}: loss {e['loss']:.4f} ({e['seconds']:.0f} s)"),
            )  # fmt: skip
        except Interrupted as stop:
            say(f"Interrupted at {stop.progress:.0%} of the training; finishing with the weights so far.")
            note = f"Training was interrupted at {stop.progress:.0%}; the same command goes on with it."
            return small, [note], False
        small.save(path)
    return small, notes, True


def _reported(
    space: Workspace,
    small: Graph,
    measured: dict[str, Any],
    budget: Budget,
    choice: Choice,
    notes: list[str],
    settings: dict[str, Any],
    inputs: Mapping[str, str],
) -> Result:
    taken = choice.taken
    if measured["missed"]:
        notes = [*notes, f"The budget was not met: {'; '.join(measured['missed'])}."]
    if not taken.meets:
        notes = [*notes, f"No candidate kept the budget of {budget}; the one that came nearest was taken."]
    elif taken.round_to is None and not taken.integer:
        notes = [*notes, "Float is already the fastest within your budget: nothing was pruned or quantised."]
    proof = {
        "schema": 1,
        "model": small.name,
        "budget": {key: value for key, value in asdict(budget).items() if value is not None},
        "seed": settings["seed"],
        "provenance": {
            **environment(),
            "inputs": {**inputs, "weights": settings["model"], "data": settings["data"]},
            "outputs": {path.name: sha256(path) for path in space.out.glob("model.*")},
        },
        "plan": [
            {key: step.get(key) for key in ("place", "technique", "setting", "before", "after")} for step in small.plan
        ],
        "seconds": {stage: round(seconds, 2) for stage, seconds in space.seconds.items()},
        "notes": notes,
        "include": settings["include"],
        "exclude": settings["exclude"],
        "settings": settings,
        "candidates": choice.to_dict()["measured"],
        **measured,
    }
    proof["headline"] = report.headline(proof)
    with space.timed("report"):
        report.write(proof, space.out)
    return Result(small, proof, space.out)
