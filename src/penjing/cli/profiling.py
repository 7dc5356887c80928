"""The command `profile`: where the time goes, layer by layer, and how far each layer is from what the machine allows."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.measure import Measurement
from rich.table import Column, Table

from penjing.cli.app import app
from penjing.cli.compressing import AsJson, Weights
from penjing.cli.kit import export_kit, show_result
from penjing.cli.looking import MaybeData
from penjing.cli.remembered import folder_of
from penjing.cli.screen import Screen
from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.graph import Graph
    from penjing.targets import Artifact, RooflineRow

TARGET = "onnxruntime"  # of a model that isn't a finished run's
AS_RUN = "by default as in a finished run, else 1"
DROPPED = ("kernel", "output", "parameters", "MACs/byte", "bytes", "op", "MACs")
"""Columns that a screen leaves out where it is too narrow for all of them, the first ones first."""
# Share of the peak of multiplying beyond which the peak is doubtful: no layer is that much faster than the fastest op.
DOUBTFUL = 1.2
UNLIMITED = 100_000  # columns of characters, more than any table takes
_TEXTS = ("layer", "op", "output", "kernel", "bound")  # columns that hold no numbers

Profiled = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="zoo:NAME, package.module:factory, file.py:factory, a .penjing, .onnx, .keras or .pt2 file, the folder of a "
        "finished run, or the file for the device in such a folder",
    ),
]


@app.command("profile")
def profile_command(
    model: Profiled = None,
    target: Annotated[
        str | None,
        typer.Option(help=f"the runtime; see penjing targets. By default that of a finished run, else {TARGET}"),
    ] = None,
    weights: Weights = None,
    data: MaybeData = None,
    threads: Annotated[int | None, typer.Option(min=1, help=f"threads of the runtime; {AS_RUN}")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help=f"samples per call; {AS_RUN}")] = None,
    kit: Annotated[
        Path | None,
        typer.Option("--export-kit", metavar="DIR", help="write a folder that measures on a device without a network"),
    ] = None,
    result: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE", help="show what such a folder measured: its result.json"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Shows where the time, the MACs and the bytes go, layer by layer, and how near each is to the machine's limits.

    The machine's peaks are measured the first time, and kept. A device is measured where its address stands for the target,
    ssh://user@host/onnxruntime, or by a folder that is carried there.
    """
    from penjing.checks import BATCH, THREADS, check, optional
    from penjing.graph import fold_batch_norms
    from penjing.targets import device_facts, find_target, lower, profile, roofline

    rules = {"threads": optional(THREADS), "batch": optional(BATCH)}
    check({"threads": threads, "batch": batch}, rules)  # before anything is loaded
    if result is not None:
        if any(given is not None for given in (model, kit, target, weights, data)):
            raise PenjingError(
                "--import shows a kit's result alone: leave MODEL, --export-kit, --target, --weights and --data out."
            )
        show_result(result, as_json)
        return
    if model is None:
        raise PenjingError("Say which MODEL is profiled, such as zoo:resnet20 or the folder of a finished run.")
    if target is not None:
        find_target(target)
    threads, batch = _deployed(Path(model), threads, batch)
    check({"threads": threads, "batch": batch}, rules)  # a report may hold any number
    if kit is not None:
        graph, artifact = _finished(Path(model), target, weights, data) or (_graph(model, weights, data), None)
        export_kit(kit, graph, artifact, target or TARGET, threads, batch, as_json)
        return
    with Screen(stderr=True).status("Timing the layers, and, where they aren't known yet, the machine's peaks …"):
        graph, artifact = _finished(Path(model), target, weights, data) or (_graph(model, weights, data), None)
        with tempfile.TemporaryDirectory() as folder:
            if artifact is None:
                chosen = find_target(target or TARGET)
                artifact = lower(graph, chosen.name, Path(folder, f"model{chosen.suffix}"))
            nodes = profile(artifact, threads, batch)
        peaks = device_facts(artifact.target, threads).peaks
    assert peaks is not None
    samples = artifact.batch or batch
    rows = roofline(fold_batch_norms(graph).cost(), nodes, peaks, samples)
    if as_json:
        print(json.dumps({name: row.to_dict() for name, row in rows.items()}, indent=2))
    else:
        _show(rows, graph, f"{graph.name} on {artifact.target}, {threads} thread(s), batch {samples}")


def _deployed(path: Path, threads: int | None, batch: int | None) -> tuple[int, int]:
    """Returns threads and batch: as given, else as in the finished run that the path names, else 1."""
    from penjing import report

    folder = folder_of(path) if path.exists() else None
    target = {} if folder is None else report.read(folder)["target"]
    return threads or target.get("threads") or 1, batch or target.get("batch") or 1


def _graph(model: str, weights: Path | None, data: str | None) -> "Graph":
    from penjing.data import load
    from penjing.models import load_model

    return load_model(model, weights, load(data) if data else None).graph()


def _finished(
    path: Path, target: str | None, weights: Path | None, data: str | None
) -> "tuple[Graph, Artifact | None] | None":
    """Returns the graph and the file of a finished run; None where the path names neither its folder nor its file.

    Where another target is asked for, there is no file.

    Raises:
        PenjingError: the folder holds no finished run, or an option was given that has no meaning for one.
    """
    from penjing import report
    from penjing.graph import load
    from penjing.models import ELSEWHERE, WEIGHTS, WHOLE
    from penjing.targets import find_target, open_artifact

    is_file = path.is_file() and path.suffix not in (*WHOLE, *WEIGHTS, ".py")
    is_file |= path.is_file() and path.suffix in ELSEWHERE and (path.parent / "model.penjing").is_file()
    if not path.is_dir() and not is_file:
        return None
    if weights is not None or data is not None:
        raise PenjingError(f"{path} is a finished run's, which needs neither --weights nor --data; leave them out.")
    folder = path.parent if is_file else path
    if not (folder / "model.penjing").is_file():
        raise PenjingError(
            f"There is no model.penjing in {folder}: the file for a device is profiled beside the graph that it was made of, "
            "in the folder of its run."
        )
    graph = load(folder / "model.penjing")
    ran_on = report.read(folder)["target"]["name"]
    if target not in (None, ran_on):
        return graph, None
    return graph, open_artifact(path if is_file else folder / f"model{find_target(ran_on).suffix}", ran_on)


def _show(rows: "Mapping[str, RooflineRow]", graph: "Graph", what: str) -> None:
    from penjing.graph.cost import uncounted
    from penjing.targets import FAR, far_from_limit

    total = sum(row.latency_ms or 0.0 for row in rows.values())
    screen = Screen()
    screen.print(_fitting(screen, [_cells(name, row, total) for name, row in rows.items()]))
    cost = graph.cost()
    screen.print(
        f"{what}: {total:.3f} ms in these layers, {cost.macs:,} MACs a sample, {cost.params:,} parameters."
        f"\n{far_from_limit(rows):.0%} of this time is spent in layers that reach less than {FAR:.0%} of the speed that the "
        "machine allows them."
    )
    if left_out := cost.uncounted:
        screen.print(uncounted(left_out))
    if doubt := _doubt(rows):
        screen.print(doubt)


def _doubt(rows: "Mapping[str, RooflineRow]") -> str:
    """Says that the peaks were measured beside other work, where layers multiply faster than they allow; else ""."""
    from penjing.files import cache_folder

    beyond = [name for name, row in rows.items() if row.bound == "compute" and (row.reached or 0.0) > DOUBTFUL]
    if not beyond:
        return ""
    return (
        f"{beyond[0]} multiplies {rows[beyond[0]].reached:.1f}× as fast as the peak that was measured: other work disturbed "
        f"that. Delete {cache_folder() / 'peaks.json'} to measure the peaks again."
    )


def _cells(name: str, row: "RooflineRow", total: float) -> dict[str, str]:
    """Returns a layer's cells by the titles of their columns."""
    took = row.latency_ms
    return {
        "layer": name,
        "op": row.op,
        "output": "×".join(map(str, row.shape)),
        "kernel": ", ".join(row.kernels),
        "ms": "fused" if took is None else f"{took:.3f}",
        "share": "" if took is None else f"{took / (total or 1.0):.1%}",
        "MACs": f"{row.macs:,}" if row.counted else f"{row.macs:,} + ?" if row.macs else "?",
        "parameters": f"{row.params:,}",
        "bytes": f"{row.bytes:,}",
        "MACs/byte": "" if row.intensity is None else f"{row.intensity:.1f}",
        "bound": row.bound if row.counted else "",
        "reached": "" if row.reached is None else f"{row.reached:.0%}",
    }


def _fitting(screen: Screen, rows: Sequence[Mapping[str, str]]) -> Table:
    """Returns the table of all columns, or without those that are dropped until it fits the screen."""
    titles = list(rows[0]) if rows else ["layer"]
    for dropped in (None, *DROPPED):
        titles = [title for title in titles if title != dropped]
        table = Table(*(Column(title, justify="left" if title in _TEXTS else "right") for title in titles))
        for row in rows:
            table.add_row(*(row[title] for title in titles))
        if Measurement.get(screen, screen.options.update(max_width=UNLIMITED), table).maximum <= screen.width:
            break
    return table
