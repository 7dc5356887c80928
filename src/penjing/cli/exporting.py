"""The command that writes a model as a target's file and changes nothing in it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penjing.cli.app import app
from penjing.cli.compressing import finish, printer
from penjing.cli.one_technique import PlaceOptions
from penjing.cli.remembered import data_of, folder_of
from penjing.cli.spread import takes_options
from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.data import Data
    from penjing.graph import Graph

Exported = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="a .penjing, .onnx, .keras or .pt2 file, the folder of a finished run, zoo:NAME, "
        "package.module:factory, or file.py:factory",
    ),
]


@app.command("export")
@takes_options
def export_command(
    model: Exported,
    *,
    original: Annotated[
        str | None,
        typer.Option(
            help="what the file is compared with, named like MODEL; by default the original of a finished run, else MODEL itself"
        ),
    ] = None,
    float16: Annotated[
        bool, typer.Option("--float16", help="store float weights in 16 bits: half the size, and the same speed")
    ] = False,
    options: PlaceOptions,
) -> None:
    """Writes a model as a target's file, with all that belongs to it, and measures it beside the original.

    Neither weights nor numbers change, but for --float16: what recover, prune or Python saved as a .penjing file gets its file
    for a device, and what was made for one target gets that for another one. How inputs are prepared comes from --data, or the
    finished run.
    """
    from penjing.planning import Deployment
    from penjing.run.delivery import take_over
    from penjing.run.one_technique import OneTechnique, carry_out_alone
    from penjing.run.request import hash_of
    from penjing.targets import check_stores_half, find_target

    options.check()
    if float16:
        check_stores_half(find_target(options.target))
    folder, say = Path(model) if Path(model).is_dir() else None, printer(options.as_json)
    if folder is not None and folder.resolve() == options.out.resolve():
        raise PenjingError(f"{folder} is the folder of the run itself: name another one by --out.")
    if folder is not None and options.weights is not None:
        raise PenjingError(f"{folder} is a finished run, which holds its weights; leave --weights out.")
    data = _data(folder, options, say)
    graph, hashes = _model(model, options.weights, data)
    before = _original(folder, graph) if original is None else _model(original, None, data)[0]
    asked = OneTechnique(
        None,
        lambda _: graph,
        {"exported": hash_of(graph), "float16": float16},
        data,
        Deployment(options.target, options.threads, options.batch),
        options.seed,
        options.weights is not None or not model.startswith("zoo:"),
        "float16" if float16 else "float32",
    )
    content = carry_out_alone(before, asked, options.out, say, hashes)
    if folder is not None and data is None:
        take_over(folder, options.out, options.target)
    finish(content, options.out, options.as_json)


def _data(folder: Path | None, options: PlaceOptions, say: Callable[[str], None]) -> "Data | None":
    """Returns the data to judge on: those that were given, or else those of a finished run, if they can be had without a word.

    Raises:
        PenjingError: the data are there and can't be read.
    """
    from penjing.data import comes_from_code, is_there
    from penjing.run.remembered import source_of

    if options.data is None and (folder is None or folder_of(folder) is None):
        return None
    if options.data is None and folder is not None:
        told = source_of(folder)
        code = bool(told) and comes_from_code(told)
        if not told or code or not is_there(told):
            why = (
                "come from code, which no file may start"
                if code
                else f"are gone ({told})"
                if told
                else "have no name there"
            )
            say(f"The data of the run {why}, so the metric isn't measured: give --data to judge the file.")
            return None
    try:
        return data_of(folder, options.data, options.seed)
    except PenjingError as error:
        if options.data is not None:
            raise
        raise PenjingError(
            f"The data of the run can't be read: {error} Mend them, or give other ones by --data."
        ) from error


def _model(spec: str, weights: Path | None, data: "Data | None") -> "tuple[Graph, dict[str, str]]":
    """Returns the graph that a name stands for, and the hashes of the files that it came from."""
    from penjing.files import sha256
    from penjing.graph import load as load_graph
    from penjing.models import load_model

    if Path(spec).is_dir():
        file = Path(spec, "model.penjing")
        if not file.is_file():
            raise PenjingError(f"There is no model.penjing in {spec}, so it isn't the folder of a finished run.")
        return load_graph(file), {"model_file": sha256(file)}
    loaded = load_model(spec, weights, data)
    return loaded.graph(), loaded.hashes


def _original(folder: Path | None, graph: "Graph") -> "Graph":
    """Returns the original of a finished run; a model that isn't one's stands for itself."""
    from penjing.graph import load
    from penjing.run.stages import ORIGINAL
    from penjing.run.workspace import INNER

    if folder is None:
        return graph
    file = folder / INNER / ORIGINAL
    if not file.is_file():
        raise PenjingError(f"{folder} doesn't hold its original ({file}) any more: name it by --original.")
    return load(file)
