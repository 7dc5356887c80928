"""The commands that make networks which choose their own cost while they run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penjing.cli.app import app
from penjing.cli.compressing import SPEC, Model, load_data, printer
from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.data import Data
    from penjing.graph import Graph

DataSpec = Annotated[str, typer.Option("--data", help=f"data to train and to judge on. {SPEC}")]
Weights = Annotated[Path | None, typer.Option(help="weights for the model: .safetensors, or .pt of plain tensors")]
Target = Annotated[str, typer.Option(help="the runtime; see penjing targets")]
Epochs = Annotated[int, typer.Option(min=0, help="passes over the training data")]
Rate = Annotated[float | None, typer.Option("--lr", help="peak learning rate; by default by trial")]
Seed = Annotated[int, typer.Option(help="seed of all random choices")]
MADE = {"slim": "slimmable.json", "exits": "exits.json"}  # by command, the file of a finished network
Out = Annotated[Path, typer.Option(help="folder for everything that is written")]


@app.command("slim")
def slim_command(
    model: Model,
    data: DataSpec,
    widths: Annotated[str, typer.Option(help="shares of the channels, separated by commas")] = "0.25,0.5,1",
    weights: Weights = None,
    criterion: Annotated[str, typer.Option(help="how channels are ranked; see penjing list criteria")] = "l2",
    epochs: Epochs = 30,
    lr: Rate = None,
    target: Target = "onnxruntime",
    seed: Seed = 0,
    out: Out = Path("out"),
) -> None:
    """Makes one network of several widths that share their weights, and one file for each width."""
    from penjing.pruning import criteria
    from penjing.targets import find_target
    from penjing.tasks import evaluate, metric_words
    from penjing.verbs import slimmable

    def check() -> None:
        criteria[criterion]
        find_target(target)

    shares = _numbers(widths)
    given, graph = _loaded(data, seed, check, model, weights)
    say = printer(as_json=False)
    with _reserved(out, "slim") as checkpoint:
        made = slimmable(
            graph,
            shares,
            data=given,
            epochs=epochs,
            criterion=criterion,
            seed=seed,
            lr=lr,
            checkpoint=checkpoint,
            log=say,
        )
        made.save(out)
        for place, artifact in enumerate(made.lower(target, out)):
            narrow = made.graph(place)
            metric = None if given.validation is None else evaluate(narrow, given.validation, given.task)
            judged = "" if metric is None else f", {metric_words(given.task, metric)}"
            say(
                f"width {made.widths[place]:g}: {narrow.cost().macs:,} MACs, {artifact.size_bytes:,} bytes{judged}, "
                f"{artifact.path}"
            )


@app.command("exits")
def exits_command(
    model: Model,
    data: DataSpec,
    at: Annotated[
        list[str] | None, typer.Option(help="module or node behind which an exit stands; may be given many times")
    ] = None,
    weights: Weights = None,
    drop: Annotated[str, typer.Option(help="largest fall of the metric: 0.005, '1 point' or '2%'")] = "0.005",
    threshold: Annotated[
        float | None,
        typer.Option(help="confidence from which on a sample leaves; by default the cheapest under --drop"),
    ] = None,
    train_network: Annotated[bool, typer.Option("--train-network", help="let the network learn along")] = False,
    epochs: Epochs = 5,
    lr: Rate = None,
    target: Target = "onnxruntime",
    threads: Annotated[int, typer.Option(min=1, help="threads of the runtime")] = 1,
    seed: Seed = 0,
    out: Out = Path("out"),
) -> None:
    """Gives a network exits by which easy inputs leave early, and writes its stages and a script that runs them."""
    from penjing.targets import find_target
    from penjing.verbs import early_exit

    given, graph = _loaded(data, seed, lambda: find_target(target), model, weights)
    say = printer(as_json=False)
    with _reserved(out, "exits") as checkpoint:
        made = early_exit(
            graph, data=given, at=at or "auto", drop=drop, threshold=threshold, train_network=train_network, epochs=epochs,
            target=target, threads=threads, seed=seed, lr=lr, checkpoint=checkpoint, log=say,
        )  # fmt: skip
        made.save(out)
        made.lower(target, out, given if find_target(target).staged_runner else None)
        say(str(made.measure(given, target, threads=threads)))


@contextmanager
def _reserved(out: Path, command: str) -> Iterator[Path]:
    """Keeps other commands out of a folder while the block runs, and yields the checkpoint's path.

    Raises:
        PenjingError: the folder is in use, or holds the work of another command, or something else.
    """
    from penjing.run.lock import locked
    from penjing.run.workspace import INNER, RECORD

    _check_folder(out, command, out / INNER, RECORD)
    with locked(out / INNER, out):
        yield _checkpoint(out / INNER, command)


def _check_folder(out: Path, command: str, inner: Path, record: str) -> None:
    """Raises if a folder holds the work of another command, or something else."""
    if out.exists() and not out.is_dir():
        raise PenjingError(f"{out} is a file; give a folder.")
    others = [other for other in MADE if other != command and _is_of(out, other, inner)]
    if others or (inner / record).exists():
        found = f"what penjing {others[0]} made" if others else "a run"
        raise PenjingError(f"{out} holds {found}: give another folder for penjing {command}.")
    if out.is_dir() and not _is_of(out, command, inner) and any(path != inner for path in out.iterdir()):
        raise PenjingError(f"{out} is not empty and holds nothing of penjing {command}; give a new or empty folder.")


def _is_of(out: Path, command: str, inner: Path) -> bool:
    """Tells whether a command wrote into a folder, even if it was killed since."""
    return (out / MADE[command]).exists() or _checkpoint(inner, command).exists()


def _checkpoint(inner: Path, command: str) -> Path:
    return inner / f"{command}.checkpoint"


def _loaded(spec: str, seed: int, check: Any, model: str, weights: Path | None) -> "tuple[Data, Graph]":
    """Returns the data, prepared for calibration, and the model as a graph."""
    from penjing.models import load_model
    from penjing.run.request import calibrated

    given = calibrated(load_data(spec, seed, check))
    return given, load_model(model, weights, given).graph()


def _numbers(text: str) -> list[float]:
    """Reads numbers that commas separate.

    Raises:
        PenjingError: one is none.
    """
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise PenjingError(f"--widths {text}: give shares separated by commas, such as 0.25,0.5,1.") from None
