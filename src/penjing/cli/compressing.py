"""Commands that make models smaller: demo, compress, recover."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from penjing.budget import Budget
from penjing.cli.app import app
from penjing.cli.budget_options import BudgetOptions
from penjing.cli.changed_images import OnChangedImages, show_robustness
from penjing.cli.continuing import Options, StartFrom, check_teacher_again, folder_for
from penjing.cli.face import Face
from penjing.cli.place_patterns import PlacePatterns
from penjing.cli.remembered import MODEL, data_of, folder_of
from penjing.cli.screen import Screen, styled
from penjing.cli.spread import takes_options
from penjing.cli.teaching import Join, Teachers, TeacherWeights, load_teacher, without_weights
from penjing.cli.training_options import TrainingOptions
from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.data import Data, Preprocess

NOT_MET = 3
TECHNIQUES = "prune,quantize"  # those that are used by default
MEANT = {"keep": "Modules are kept from pruning by --keep-channels, and from quantisation by --keep-float."}
MOST_NAMED = 3  # layers that are named per reason; the plan in the report names all

Model = Annotated[
    str,
    typer.Argument(help="zoo:NAME, package.module:factory, file.py:factory, a .penjing, .onnx, .keras or .pt2 file"),
]
MaybeModel = Annotated[
    str | None,
    typer.Argument(
        help="zoo:NAME, package.module:factory, file.py:factory, a .penjing, .onnx, .keras or .pt2 file; else that of --from"
    ),
]
SPEC = (
    "digits, mnist:PATH.npz, cifar10:PATH, folder:PATH[,size=224,mean=0.5,std=0.5], package.module:factory, or "
    "file.py:factory; a folder's mean and std, of values from 0 to 1, are those of the training, by default ImageNet's"
)
RunData = Annotated[str | None, typer.Option("--data", help=f"data; by default those of an earlier run. {SPEC}")]
Weights = Annotated[Path | None, typer.Option(help="weights for the model: .safetensors, or .pt of plain tensors")]
LIMIT = (
    "a bound on the time of the whole command. Where it is short, fewer candidates are measured, training is shortened or "
    "left out, and latency is measured on fewer calls; the result is verified in any case"
)
Units = Annotated[str, typer.Option(help="what a unit of attention is: heads, features, or auto (what saves more)")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on standard output")]


def printer(as_json: bool) -> Any:
    """Returns a function that prints lines for the user: on standard error where standard output holds JSON."""
    return Screen(stderr=as_json, soft_wrap=True).print


def _say_nothing(line: object) -> None:
    """Takes the place of `printer`'s function where another process says the same."""


def load_data(spec: str, seed: int | None, check_names: Callable[[], None], like: "Preprocess | None" = None) -> "Data":
    """Returns the data, once all names of methods that a command was given are known.

    Names are checked before data are loaded, so that a mistake is reported at once; where the data come from a file of the
    user's, afterwards, since that file may register methods of its own. `like` says how images of a folder become inputs where
    `spec` doesn't.

    Raises:
        PenjingError: a name is unknown, or the data can't be loaded.
    """
    from penjing.data import comes_from_code, load

    if not comes_from_code(spec):
        check_names()
    data = load(spec, seed, like)
    check_names()
    return data


def check_options(given: Mapping[str, Any]) -> None:
    """Applies the rules of `compress` to the options that were given, and calls them by their names on the command line.

    Raises:
        PenjingError: an option has a value that its rule doesn't allow.
    """
    from penjing.run.request import RULES

    for name, value in given.items():
        if value is not None:
            rule = RULES[name]
            try:
                replace(rule, says=rule.says.removesuffix(", or None")).read(f"--{name.replace('_', '-')}", value)
            except PenjingError as error:
                raise PenjingError(f"{error} {MEANT[name]}" if name in MEANT else str(error)) from error


def named_techniques(techniques: str, only: Mapping[str, bool]) -> list[str]:
    """Returns the names of the techniques that a command was given.

    Args:
        techniques: names with commas between them.
        only: by a technique's name, whether its short form, such as `--quantize-only`, was given.

    Raises:
        PenjingError: a short form was given beside another one, or beside other names.
    """
    found = [name.strip() for name in techniques.split(",") if name.strip()]
    short = [name for name, given in only.items() if given]
    if not short:
        return found
    if len(short) > 1 or (techniques != TECHNIQUES and found != short):
        others = [f"--{name}-only" for name in short[1:]] or [f"--techniques {techniques}"]
        raise PenjingError(f"--{short[0]}-only and {others[0]} contradict each other: give one of them.")
    return short


def in_floating_point(plan: Sequence[Mapping[str, Any]]) -> str:
    """Returns a line that names the layers that a plan leaves in floating point, by reason; "" where there are none."""
    from penjing.report import reason

    places: dict[str, list[str]] = {}
    for step in plan:
        if step["technique"] == "quantize" and (why := reason(step)):
            places.setdefault(why, []).append(step["place"])
    return f"In floating point: {_by_reason(places)}." if places else ""


def left_whole(plan: Sequence[Mapping[str, Any]]) -> str:
    """Returns a line that names the layers that a plan doesn't factorise, by reason; "" where there are none."""
    from penjing.report import words

    places: dict[str, list[str]] = {}
    for step in plan:
        if step["technique"] == "factorize" and "reason" in (step.get("found") or {}):
            places.setdefault(words(step).removeprefix("left alone: "), []).append(step["place"])
    return f"Left whole: {_by_reason(places)}." if places else ""


def _by_reason(places: Mapping[str, Sequence[str]]) -> str:
    reasons = []
    for why, named in places.items():
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        reasons.append(f"{', '.join(named[:MOST_NAMED])}{more} ({why})")
    return "; ".join(reasons)


def finish(report: Mapping[str, Any], out: Path, as_json: bool) -> None:
    """Prints the report of a finished run; exits with 3 if its budget was not met."""
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        screen = Screen(soft_wrap=True)
        screen.print()
        screen.print(styled(report["headline"], "bold"))
        for note in (*report["notes"], in_floating_point(report["plan"]), left_whole(report["plan"])):
            if note:
                screen.print(note)
        asked = Budget.reported(report["budget"])
        # Where the budget wasn't met, a note above says so.
        met = (styled("The budget was met", "green"), styled(f" ({asked}). ", "")) if report["met"] else ()
        shown = met if asked != Budget() else ()
        screen.print(Text.assemble(*shown, styled(f"The proof: {out / 'report.html'}", "")))
    if not report["met"]:
        raise typer.Exit(NOT_MET)


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option(help="folder for everything that is written")] = Path("penjing-demo"),
    seed: Annotated[int, typer.Option(help="seed of all random choices")] = 0,
    as_json: AsJson = False,
) -> None:
    """Trains a small network on built-in data, then makes it twice as fast and four times smaller."""
    from penjing.demo import demo

    with Face(as_json) as face:
        done = demo(out, seed=seed, say=face, watch=face.watch)
    finish(done.report, done.out, as_json)


@app.command("compress")
@takes_options
def compress_command(
    context: typer.Context,
    model: MaybeModel = None,
    data: RunData = None,
    *,
    start_from: StartFrom = None,
    target: Annotated[str, typer.Option(help="the runtime; see penjing targets")] = "onnxruntime",
    weights: Weights = None,
    limits: BudgetOptions,
    places: PlacePatterns,
    units: Units = "auto",
    min_channels: Annotated[int, typer.Option(min=1, help="units that each group of channels keeps at least")] = 1,
    out: Annotated[Path, typer.Option(help="folder for everything that is written")] = Path("out"),
    epochs: Annotated[int, typer.Option(min=0, help="passes over the training data to recover")] = 5,
    techniques: Annotated[
        str, typer.Option(help="what may be done, such as prune,factorize,quantize; see penjing list techniques")
    ] = TECHNIQUES,
    grid: Annotated[str, typer.Option(help="the weights' grid, such as int8 or int4; see penjing list grids")] = "int8",
    quantize_only: Annotated[bool, typer.Option("--quantize-only", help="short for --techniques quantize")] = False,
    prune_only: Annotated[bool, typer.Option("--prune-only", help="short for --techniques prune")] = False,
    solver: Annotated[str, typer.Option(help="how it is chosen what to do; see penjing list solvers")] = "milp",
    objective: Annotated[
        str,
        typer.Option(help="what is made least: damage, under the limits; or latency or size, as far as --drop allows"),
    ] = "damage",
    criterion: Annotated[str | None, typer.Option(help="how channels are ranked; see penjing list criteria")] = None,
    training: TrainingOptions,
    teacher: Teachers = None,
    teacher_weights: TeacherWeights = None,
    join: Join = "mean",
    threads: Annotated[int, typer.Option(min=1, help="threads of the runtime")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="batch size at which latency is measured")] = 1,
    seed: Annotated[int, typer.Option(help="seed of all random choices")] = 0,
    max_minutes: Annotated[float | None, typer.Option(help=LIMIT)] = None,
    on_changed_images: OnChangedImages = False,
    dry_run: Annotated[bool, typer.Option(help="say how long it would take and what it would write, and stop")] = False,
    as_json: AsJson = False,
) -> None:
    """Makes a trained model small and fast on a target, and measures the result."""
    from penjing.compress import Result, compress
    from penjing.explanation import check_images
    from penjing.models import WHOLE, load_model
    from penjing.planning import check_in_compress
    from penjing.planning import techniques as known
    from penjing.pruning import criteria
    from penjing.run.earlier import earlier_run
    from penjing.run.objective import check_objective
    from penjing.run.request import perhaps_random
    from penjing.run.robustness import add_robustness
    from penjing.targets import find_target

    earlier = None if start_from is None else earlier_run(start_from)
    options = Options(context, earlier)
    if quantize_only or prune_only:
        options = options.without("techniques")
    asked = options.plain(
        target=target, units=units, min_channels=min_channels, epochs=epochs, techniques=techniques, grid=grid,
        solver=solver, criterion=criterion, threads=threads, batch=batch, seed=seed,
    )  # fmt: skip
    limits, places, training = options.limits(limits), options.spread(places), options.spread(training)
    budget, out = limits.budget(), folder_for(start_from, out)
    plain = {name: asked[name] for name in ("min_channels", "epochs", "threads", "batch", "seed")}
    # Before anything is loaded, so that a mistake is reported at once.
    check_options({**plain, **training.keywords(), "max_minutes": max_minutes})
    find_target(asked["target"])
    asked["techniques"] = named_techniques(asked["techniques"], {"quantize": quantize_only, "prune": prune_only})

    def check_names() -> None:
        training.check_names()
        if asked["criterion"] is not None:
            criteria[asked["criterion"]]
        for name in asked["techniques"]:
            known[name]
        known["quantize"].function(weights=asked["grid"])
        check_in_compress(asked["solver"])
        check_objective(objective, budget)

    if earlier is None and (model is None or data is None):
        raise PenjingError("Name a model and --data, or begin with an earlier run: --from OUT.")
    check_teacher_again(earlier, teacher)
    if data is None and earlier is not None:
        check_names()
        chosen = earlier.data(asked["seed"])
    else:
        assert data is not None  # there is no earlier run
        chosen = load_data(data, asked["seed"], check_names, None if earlier is None else earlier.preprocess())
    if on_changed_images:
        check_images(chosen)
    if model is None and earlier is not None:
        if weights is not None:
            raise PenjingError(f"--weights belong to a MODEL, and none is given: that of {start_from} holds its own.")
        graph, hashes, trained = None, dict(earlier.told.get("inputs") or {}), earlier.settings["trained"]
    else:
        assert model is not None  # there is no earlier run
        loaded = load_model(model, weights, chosen)
        graph, hashes = loaded.graph(), loaded.hashes
        trained = weights is not None or model.endswith(WHOLE)
        if model.startswith("zoo:") and weights is None:
            printer(as_json)(f"No --weights were given: {model} has random weights, so its accuracy means nothing.")
    taught_by, untrained = (
        load_teacher(teacher, teacher_weights, chosen, join),
        without_weights(teacher, teacher_weights),
    )
    for line in map(perhaps_random, untrained):
        printer(as_json)(f"Warning: {line} Give --teacher-weights.")
    with Face(as_json) as face:
        result = compress(
            graph,
            data=chosen,
            start_from=start_from,
            budget=budget,
            out=out,
            objective=objective,
            teacher=taught_by,
            **asked,
            **places.keywords(),
            **training.keywords(),
            max_minutes=max_minutes,
            began=context.obj,
            dry_run=dry_run,
            say=face,
            watch=face.watch,
            inputs=hashes,
            trained=trained,
            untrained_teachers=untrained,
        )
    if isinstance(result, Result):
        content = result.report if not on_changed_images else add_robustness(result.out, chosen, seed=asked["seed"])
        if on_changed_images and not as_json:
            show_robustness(content, result.out)
        finish(content, result.out, as_json)
    elif as_json:
        print(json.dumps({**asdict(result), "out": str(result.out)}, indent=2))


@app.command("recover")
@takes_options
def recover_command(
    file: Annotated[Path, typer.Argument(help="a .penjing file, or the folder of a finished run")],
    data: RunData = None,
    *,
    teacher: Teachers = None,
    teacher_weights: TeacherWeights = None,
    join: Join = "mean",
    epochs: Annotated[int, typer.Option(min=0, help="passes over the training data")] = 5,
    seed: Annotated[int, typer.Option(help="seed of all random choices")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="file to write; by default NAME-recovered.penjing beside FILE")
    ] = None,
    training: TrainingOptions,
    as_json: AsJson = False,
) -> None:
    """Trains or distils a saved graph further; after a stop, the same command goes on where it was."""
    from penjing.files import sweep
    from penjing.models import load_model
    from penjing.run.request import perhaps_random
    from penjing.tasks import evaluate, metric_words, shown_metric
    from penjing.training import Interrupted, recover
    from penjing.training.processes import accelerator

    is_main = accelerator().is_main_process  # of several processes that train together, the first speaks and writes
    say = printer(as_json) if is_main else _say_nothing
    file = file / MODEL if file.is_dir() else file
    if file.suffix != ".penjing":
        raise PenjingError(f"recover takes a .penjing file, or the folder of a finished run, not {file}.")
    chosen = data_of(folder_of(file), data, seed, training.check_names)
    graph = load_model(str(file)).graph()
    taught_by = load_teacher(teacher, teacher_weights, chosen, join)
    for line in map(perhaps_random, without_weights(teacher, teacher_weights)):
        say(f"Warning: {line} Give --teacher-weights.")
    target = out or file.with_name(f"{file.stem}-recovered.penjing")
    checkpoint = target.with_suffix(".checkpoint")
    sweep(target.parent, target.stem)  # half-written files that a killed command left
    done: list[dict[str, Any]] = []

    def told(epoch: dict[str, Any]) -> None:
        done.append(epoch)
        judged = "" if epoch["metric"] is None else f", {metric_words(chosen.task, epoch['metric'])}"
        say(f"epoch {epoch['epoch']}: loss {epoch['loss']:.4f}{judged} ({epoch['seconds']:.0f} s)")

    before = evaluate(graph, chosen.validation, chosen.task) if chosen.validation is not None else None
    try:
        recover(
            graph,
            chosen,
            teacher=taught_by,
            epochs=epochs,
            **training.keywords(),
            seed=seed,
            checkpoint=checkpoint,
            log=say,
            report=told,
        )
    except Interrupted as stop:
        if not is_main:
            raise typer.Exit(130) from None
        say(f"Interrupted at {stop.progress:.0%}; the same command goes on. The weights so far are in {target}.")
        graph.save(target)
        if as_json:
            print(
                json.dumps({"out": str(target), "finished": False, "progress": stop.progress, "epochs": done}, indent=2)
            )
        raise typer.Exit(130) from None
    if not is_main:
        return
    graph.save(target)
    checkpoint.unlink(missing_ok=True)
    after = evaluate(graph, chosen.validation, chosen.task) if chosen.validation is not None else None
    if before is not None:
        shown = [shown_metric(chosen.task, value) for value in (before, after) if value is not None]
        say(f"{chosen.task.metric_name}: {' before, '.join(f'{value:.4f}' for value in shown)} after.")
        if after is not None and after < before:
            say(
                f"Warning: the result is worse than the start, which {file} still holds: try a smaller --lr, --keep best, or "
                "another --teacher, one that does better on these data."
            )
    say(f"Written: {target}")
    if as_json:
        metric = {"name": chosen.task.metric_name, "before": before, "after": after}
        print(json.dumps({"out": str(target), "finished": True, "metric": metric, "epochs": done}, indent=2))
