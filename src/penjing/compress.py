"""The whole flow on one page: capture, profile, choose, prune, recover, quantise, lower, verify, report."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from penjing import report
from penjing.budget import Budget
from penjing.checks import checked
from penjing.data import Data
from penjing.distillation.teachers import TaughtBy, taught_by
from penjing.errors import PenjingError
from penjing.evidence.memory import remembering
from penjing.graph import Graph, capture
from penjing.lines import Lasting
from penjing.planning import Deployment, Problem, Solution, carried_out, find_solver
from penjing.run import stages
from penjing.run.assemble_report import assemble_report
from penjing.run.baseline import Baseline, judge_original, nothing_learned
from penjing.run.clock import Clock
from penjing.run.correction import anchor_of, choose_again
from penjing.run.delivery import deliver
from penjing.run.earlier import beginning_with, begun_with, facts, judge_anew, set_by
from penjing.run.estimate import Estimate, estimate, known, measured_before, seconds_of_a_width, what_follows
from penjing.run.lock import locked
from penjing.run.log import LOG, RunLog
from penjing.run.objective import MOST, check_objective, first_run, lowered_limit
from penjing.run.progress import Course, Progress
from penjing.run.recovery import Recovery, recovered
from penjing.run.request import RULES, CompressRequest, settled
from penjing.run.result import Result
from penjing.run.samples import told
from penjing.run.verification import OriginalAndCompressed, verify
from penjing.run.workspace import CANDIDATES, EVIDENCE, INNER, Workspace, check_space, look, read_json, write_json
from penjing.targets import Artifact, lower, machine_of, open_artifact
from penjing.tasks import metric_words
from penjing.techniques import Scope
from penjing.training import TrainingSettings
from penjing.training.display import Show

__all__ = ["Result", "compress"]


@dataclass(frozen=True)
class Original:
    """The original, with which everything is compared: its graph, its lowered file, and how the file was judged."""

    graph: Graph
    file: Artifact
    baseline: Baseline


@checked(**RULES)
def compress(
    model: nn.Module | None = None,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    data: Data | None = None,
    target: str = "onnxruntime",
    budget: Budget | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    keep_channels: Sequence[str] = (),
    keep_float: Sequence[str] = (),
    units: str = "auto",
    min_channels: int = 1,
    out: Path | str = "out",
    start_from: Path | str | None = None,
    techniques: Sequence[str] = ("prune", "quantize"),
    grid: str = "int8",
    solver: str = "milp",
    objective: str = "damage",
    epochs: int = 5,
    criterion: str | None = None,
    lr: float | None = None,
    signal: str = "auto",
    balance: str = "fixed",
    schedule: str = "joint",
    penalty: str | None = None,
    penalty_weight: float | None = None,
    layer_decay: float = 1.0,
    ema: float | None = None,
    reestimate_norms: bool | Literal["auto"] = "auto",
    augment: str | Sequence[str] = (),
    label_smoothing: float = 0.0,
    stop_at: float | None = None,
    keep: Literal["last", "best"] = "last",
    trackers: Sequence[str] = (),
    teacher: TaughtBy = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    channels_last: bool | Literal["auto"] = "auto",
    threads: int = 1,
    batch: int = 1,
    seed: int = 0,
    max_minutes: float | None = None,
    began: float | None = None,
    dry_run: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print,
    watch: Callable[[Progress], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    inputs: Mapping[str, str] | None = None,
    trained: bool = True,
    untrained_teachers: Sequence[str] = (),
) -> Result | Estimate:
    """Makes a trained model small and fast on a target, and measures the result.

    After a kill at any moment, the same call continues from the last finished stage. After Ctrl-C while candidates are
    measured, the run goes on with the best candidate so far; after Ctrl-C during training, with the weights so far. The
    same call, made again, resumes the measuring or the training.

    Args:
        model: a trained model, or a captured graph; by default that of `start_from`.
        example_inputs: inputs as the model is called; not needed for a graph.
        data: the data to calibrate, train and judge on; by default those of `start_from`.
        target: the runtime; see `penjing targets`.
        budget: limits on latency, size, MACs, memory and layers, and on the metric's fall; see `Budget`.
        include: patterns of module paths; only these are pruned.
        exclude: patterns of module paths that stay as they are: neither pruned nor factorised nor quantised.
        keep_channels: patterns of module paths that are neither pruned nor factorised, and may be quantised.
        keep_float: patterns of module paths that aren't quantised, and may be pruned or factorised.
        units: what a unit of attention is, "heads", "features" or "auto"; see `channels`.
        min_channels: how many units each group of channels keeps at least.
        out: the folder for everything that is written; new, empty, or of the same run; used by one call at a time.
        start_from: the folder of an earlier run on the same model, with which this one begins: what it measured isn't measured
            again, and where the same candidate is chosen, training begins with its weights. All other arguments count as given.
        techniques: what may be done to the model, names in `penjing list techniques`. The default solver takes those that
            change the structure, "prune" and "factorize", together; "quantize" goes with each plan.
        grid: the grid to which "quantize" rounds weights, a name in `penjing list grids`.
        solver: how it is chosen what to do, a name in `penjing list solvers`.
        objective: what is made least: the "damage" under the budget's limits, in one run; or the "latency" or the "size" as
            long as the metric falls by no more than the budget's `drop`. Then up to six runs are made, each under a limit of
            its own, in `out/.penjing/tries`; the best is copied to `out`. A dry run estimates the first of them.
        epochs: passes over the training data to recover; 0 trains nothing.
        criterion: how channels are ranked; by default "taylor" with labelled training data, else "l2".
        lr: peak learning rate of the recovery.
        signal: how the small model listens to the original, a name in `penjing list signals`, or "auto"; see `recover`.
        balance: how much the original counts beside the labels, a name in `penjing list balances`.
        schedule: when it does, a name in `penjing list distillation_schedules`.
        penalty: a term of the recovery's loss that shapes the weights, a name in `penjing list penalties`.
        penalty_weight: the penalty's factor; None takes the one of `penjing.penalties`.
        layer_decay: factor of the recovery's learning rate from one layer to the layer in front of it; see `recover`.
        ema: share of a moving average of the weights that stays at each step; the recovery ends with the average.
        reestimate_norms: whether the recovery ends with statistics of batch norms computed anew; "auto" does so with
            `ema` and with `augment`.
        augment: what changes each batch of the recovery, names in `penjing list augmentations`, such as "mixup:0.2".
        label_smoothing: share of a label's probability that is spread over all classes.
        stop_at: the metric on the validation data at which the recovery ends; see `recover`.
        keep: the weights that the recovery ends with, those of the "last" step or of the "best" epoch.
        trackers: "tensorboard" and "mlflow" show the recovery's progress; see `recover`.
        teacher: whom the small model learns from instead of the original: a model, several, or a teacher; see `recover`.
        precision: of training steps, see `recover`. "auto" measures what is faster, so equal seeds may end differently;
            name it, and `channels_last`, where they must not. The report tells what was used.
        channels_last: memory layout of training steps; "auto" measures.
        threads: threads of the runtime.
        batch: batch size at which latency is measured.
        seed: seed of everything random.
        max_minutes: a limit, in minutes, on the time of the whole call. Where it is short, fewer candidates are measured,
            training is shortened or left out, and fewer measurements are made of the result, so that the result is verified
            all the same. Steps that can't be shortened (exporting, judging on the validation data) are made even if the
            limit is passed, and the report says by how much. The same call with a larger limit, or none, goes on from what
            was measured.
        began: a value of `time.monotonic()` from which `max_minutes` counts; by default, the moment of the call.
        dry_run: only estimate how long the run would take and what it would write.
        progress: show a progress bar while training.
        say: called with lines for the user; all of them are also appended to `.penjing/log.txt` in `out`.
        watch: called whenever a stage begins, a plan was measured or a step of training was made, with where the run is. No
            progress bar is shown then.
        on_stage: called with the name of each stage that begins to do something: "capture", "profile", "choose", "prune",
            "recover", "quantise", "lower", "verify", "report".
        report: called after each epoch of the recovery, with what `recover` tells its own `report`.
        inputs: SHA-256 of the files that the model came from, for the report's provenance.
        trained: whether the model is known to have trained weights. A model that may have random weights must beat a
            constant answer by more than chance, or its compression doesn't count as a success.
        untrained_teachers: names of those teachers that may have random weights, for a note in the report.

    Returns:
        The result; an estimate for a dry run.

    Raises:
        PenjingError: bad input; nothing is half-written then.
    """
    arguments = {**locals()}
    clock = Clock(minutes=max_minutes) if began is None else Clock(began, max_minutes)
    asked_for, device = budget or Budget(), machine_of(target)
    budget = asked_for.on(device)
    for line in asked_for.told_on(device):
        say(line)
    check_objective(objective, budget)
    own = model is None
    earlier, model, data = begun_with(start_from, model, data, Path(out))
    arguments |= {"data": data}
    if objective != "damage" and dry_run:
        limited, place = first_run(objective, budget, Path(out))
        say(f"Up to {MOST} runs will be made, each under another limit on the {objective}. The first of them:")
        return compress(**(arguments | {"budget": limited, "out": place, "objective": "damage", "began": clock.began}))
    if objective != "damage":
        graph = _captured(model, example_inputs)

        def run(limited: Budget, place: Path) -> Result:
            changed = {"budget": limited, "out": place, "objective": "damage", "began": clock.began}
            result = compress(**(arguments | {"model": None if own else graph, "example_inputs": None} | changed))
            assert isinstance(result, Result)  # it is no dry run
            return result

        best = lowered_limit(objective, budget, Path(out), run, clock, say)
        return replace(best, out=Path(out))
    criterion, data = settled(criterion, data)
    training = TrainingSettings(
        epochs=epochs, lr=lr, signal=signal, balance=balance, schedule=schedule, precision=precision,
        channels_last=channels_last, seed=seed, penalty=penalty, penalty_weight=penalty_weight, layer_decay=layer_decay,
        ema=ema, reestimate_norms=reestimate_norms, augment=(augment,) if isinstance(augment, str) else tuple(augment),
        label_smoothing=label_smoothing, stop_at=stop_at, keep=keep,
    )  # fmt: skip
    asked = CompressRequest(
        data, criterion, budget, Deployment(target, threads, batch),
        Scope(tuple(include), tuple(exclude), units, min_channels, tuple(keep_channels), tuple(keep_float)),
        training, taught_by(teacher), tuple(trackers), max_minutes, trained, tuple(untrained_teachers), tuple(techniques), grid,
        solver, report,
    )  # fmt: skip
    given = _captured(model, example_inputs)
    asked.check(given)
    settings, told_of = asked.settings(given), facts(given, asked, inputs or {}, earlier)
    if earlier is not None and own:
        # It is the same model, though a file writes some of its code in another way.
        settings["model"] = earlier.settings["model"]
    held = look(out, settings, told_of)
    beginning = None if earlier is None or held.seconds else beginning_with(earlier, settings, told_of)
    held = held if beginning is None else beginning.lend(held, asked.suffixes)
    stale = stages.outlived(held, max_minutes)
    held = replace(held, without=(*stale, stages.FINISHED)) if stale else held
    expected = estimate(given, asked, held)
    if held.seconds:
        say(f"Going on with the run that was begun in {held.out}.")
    say(str(expected))
    if data.preprocess is not None:
        say(f"Images become inputs so: {data.preprocess}.")
    if data.split is not None:
        say(told(data.split))
    check_space(held.out, expected.bytes_written)
    if dry_run:
        return expected
    with locked(held.out / INNER, held.out):
        log = RunLog(say, held.out / INNER / LOG)
        course = Course(expected, clock, watch, log.note)

        def began_stage(stage: str) -> None:
            course.began(stage)
            if on_stage is not None:
                on_stage(stage)

        space = Workspace(out, settings, log, began_stage, told_of)
        if beginning is not None:
            beginning.take(space, asked.suffixes, log)
        shown = progress if watch is None else course.trained
        return _run(given, asked, space, clock, shown, log, inputs or {}, course)


def _run(
    given: Graph,
    asked: CompressRequest,
    space: Workspace,
    clock: Clock,
    progress: bool | Show,
    say: Callable[[str], None],
    inputs: Mapping[str, str],
    course: Course,
) -> Result:
    """Goes through the stages; each is read from its file if an earlier call finished it."""
    if stale := stages.outlived(space.held(), asked.max_minutes):
        say("There is more time than before: what was cut short is made again, from what was measured.")
        space.drop(*(file for file in stale if file != stages.CHECKPOINT), stages.FINISHED)
    if (done := _finished(space, asked, say)) is not None:
        return done
    asked = replace(asked, data=remembering(asked.data, space.inner / EVIDENCE))

    original = _profiled(space, asked, given)
    reached, task = original.baseline.metric, asked.data.task
    metric = "" if reached is None else f", {metric_words(task, reached)}{asked.budget.drop_words(reached)}"
    say(Lasting(f"The original: {original.graph.cost().params:,} parameters{metric}."))
    if (unlearned := nothing_learned(original.baseline, None, task, asked.trained)) is not None:
        say(Lasting(f"Warning: {unlearned}. Whatever is made of it, this run won't count as a success."))

    while True:
        problem = _problem(space, asked, original, clock, say, course)
        solution = _solved(space, asked, problem)
        small, recovery, measured = _made(space, asked, original, solution, clock, progress, say)
        whole = solution.complete and recovery.finished
        again = choose_again(space, problem, solution, measured, clock, say) if whole else "no"
        if again != "now":
            break
    if again == "with more time":
        solution = replace(solution, short_of_time=True)
        stages.note_cut(space, asked.max_minutes, [stages.CHOICE], True)
    content = assemble_report(
        space, asked, small, solution=solution, recovery=recovery, measured=measured, inputs=inputs, clock=clock
    )
    with space.timed("report"):
        report.write(content, space.out)
    if recovery.finished and solution.complete:
        write_json(True, space.inner / stages.FINISHED)
    return Result(small, content, space.out)


def _made(
    space: Workspace,
    asked: CompressRequest,
    original: Original,
    solution: Solution,
    clock: Clock,
    progress: bool | Show,
    say: Callable[[str], None],
) -> tuple[Graph, Recovery, dict[str, Any]]:
    """Carries out the solution's plan: prunes, recovers, quantises, lowers and verifies.

    Returns:
        The compressed graph, how training went, and what was measured of the finished model.
    """
    taken = solution.taken
    say(f"Chosen: {taken}: {taken.latency:.2f}× the original's latency.")
    if not solution.complete:
        say(Lasting(what_follows(original.graph, asked, space.held(), training=bool(taken.structure))))

    small = space.stage(
        "prune",
        stages.PRUNED,
        lambda: carried_out(copy.deepcopy(original.graph), taken.structure, asked.data),
        Graph.save,
        stages.read_graph,
    )
    recovery = space.stage(
        "recover",
        stages.RECOVERED,
        lambda: recovered(
            space, asked, small, original.graph, pruned=bool(taken.structure), progress=progress, say=say,
            deadline=clock.training_ends(known(space.held())),
        ),
        Recovery.save,
        Recovery.load,
        keep=lambda made: made.finished,
    )  # fmt: skip
    small = recovery.graph
    if not recovery.finished:
        say(Lasting(what_follows(original.graph, asked, space.held(), training=False)))
    with space.timed("quantise"):
        small = carried_out(small, taken.numbers, asked.data)
    with space.timed("lower"):
        small_file = lower(small, asked.deployment.target, space.out / f"model{asked.suffix}")
        deliver(small, asked.data, asked.deployment.target, space.out)
    with space.timed("verify"):
        measured = verify(
            OriginalAndCompressed(original.graph, original.file, small, small_file), asked.data, asked.budget,
            threads=asked.deployment.threads, batch=asked.deployment.batch, original=original.baseline,
            trained=asked.trained, deadline=clock.end,
        )  # fmt: skip
    return small, recovery, measured


def _captured(model: nn.Module, example_inputs: Any) -> Graph:
    """Returns the model's graph: captured, or the model itself if it is a graph."""
    if isinstance(model, Graph):
        return model
    if example_inputs is None:
        raise PenjingError("compress needs example_inputs for an nn.Module, as the model is called.")
    return capture(model, example_inputs)


def _finished(space: Workspace, asked: CompressRequest, say: Callable[[str], None]) -> Result | None:
    """Returns the result of an earlier call, if that call finished the run and the files are whole."""
    if stages.is_finished(space.held(), asked.suffixes):
        try:
            done = Result(stages.read_graph(space.out / "model.penjing"), report.read(space.out), space.out)
            open_artifact(space.out / f"model{asked.suffix}", asked.deployment.target)
            say(f"{space.out} holds this run, finished.")
            return done
        except PenjingError as damage:
            say(Lasting(f"A file of the finished run is damaged, so it is made again. {damage}"))
    (space.inner / stages.FINISHED).unlink(missing_ok=True)
    return None


def _profiled(space: Workspace, asked: CompressRequest, given: Graph) -> Original:
    """Captures, lowers and judges the original."""
    path = space.inner / stages.ORIGINAL
    known = path.exists()
    graph = space.stage("capture", stages.ORIGINAL, lambda: given, Graph.save, stages.read_graph)
    # As a resumed run has it, so that what is remembered of it serves.
    graph = graph if known else stages.read_graph(path)
    file = space.stage(
        "profile",
        stages.lowered(asked.suffix),
        lambda: lower(graph, asked.deployment.target, space.inner / stages.lowered(asked.suffix)),
        lambda made, path: None,  # lowering has written it
        lambda path: open_artifact(path, asked.deployment.target),
    )
    baseline = space.stage(
        "profile",
        stages.BASELINE,
        lambda: judge_original(file, asked.data, asked.deployment.threads),
        lambda made, path: write_json(made.to_dict(), path),
        lambda path: Baseline.from_dict(read_json(path)),
    )
    return Original(graph, file, baseline)


def _problem(
    space: Workspace,
    asked: CompressRequest,
    original: Original,
    clock: Clock,
    say: Callable[[str], None],
    course: Course,
) -> Problem:
    """Returns the problem that candidates are to solve."""

    def indented(line: str) -> None:
        say(type(line)(f"  {line}"))  # a line that stays on the screen is still one

    problem = Problem(
        original.graph, asked.data, original.file, asked.budget, asked.deployment,
        asked.proposing(), asked.scope, space.inner / CANDIDATES,
        deadline=clock.choosing_ends(known(space.held()), training=asked.training.epochs > 0),
        longest=seconds_of_a_width(space.held()), journal=space.inner / stages.CANDIDATES,
        say=indented, measured=lambda candidate: course.measured(problem, candidate),
        anchor=anchor_of(space, asked.deployment.target), seed=asked.training.seed,
    )  # fmt: skip
    judge_anew(space, problem)
    course.chooses(problem, [candidate for level in measured_before(space.held()) for candidate in level])
    return problem


def _solved(space: Workspace, asked: CompressRequest, problem: Problem) -> Solution:
    """Measures candidates and takes one; files that later stages made for another candidate are removed."""

    def write(made: Solution, path: Path) -> None:
        stages.note_cut(space, asked.max_minutes, [stages.CHOICE], made.short_of_time or bool(made.unseen))
        write_json(made.to_json(), path)

    solution = space.stage(
        "choose",
        stages.CHOICE,
        lambda: find_solver(asked.solver)(problem),
        write,
        lambda path: Solution.from_json(read_json(path)),
        keep=lambda made: made.complete,
    )
    space.settle(
        stages.TAKEN, set_by(solution.taken.structure), stages.PRUNED, stages.RECOVERED, stages.TRAINING, stages.CHECKPOINT,
        stages.START,
    )  # fmt: skip
    return solution
