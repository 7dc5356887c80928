"""The command `sweep`: several budgets from one measuring."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from penjing.cli.app import app
from penjing.cli.budget_options import BudgetOptions
from penjing.cli.compressing import (
    NOT_MET,
    SPEC,
    TECHNIQUES,
    AsJson,
    Model,
    Weights,
    check_options,
    load_data,
    named_techniques,
    printer,
)
from penjing.cli.face import Face
from penjing.cli.place_patterns import PlacePatterns
from penjing.cli.screen import Screen
from penjing.cli.spread import takes_options
from penjing.cli.training_options import TrainingOptions


@app.command("sweep")
@takes_options
def sweep_command(
    model: Model,
    data: Annotated[str, typer.Option("--data", help=f"data: {SPEC}")],
    budgets: Annotated[str, typer.Option(help="the limits, with commas between them, such as 0.5x,0.4x,0.3x")],
    *,
    limit: Annotated[str, typer.Option(help="what they limit: latency, size, macs, …")] = "latency",
    target: Annotated[str, typer.Option(help="the runtime; see penjing targets")] = "onnxruntime",
    weights: Weights = None,
    limits: BudgetOptions,
    places: PlacePatterns,
    out: Annotated[Path, typer.Option(help="folder for all runs, one folder for each of them")] = Path("out"),
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="the folder of an earlier run on the same model, with which the first begins"),
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="passes over the training data to recover, in each run")] = 5,
    techniques: Annotated[str, typer.Option(help="what may be done; see penjing list techniques")] = TECHNIQUES,
    solver: Annotated[str, typer.Option(help="how it is chosen what to do; see penjing list solvers")] = "milp",
    criterion: Annotated[str | None, typer.Option(help="how channels are ranked; see penjing list criteria")] = None,
    training: TrainingOptions,
    threads: Annotated[int, typer.Option(min=1, help="threads of the runtime")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="batch size at which latency is measured")] = 1,
    seed: Annotated[int, typer.Option(help="seed of all random choices")] = 0,
    max_minutes: Annotated[float | None, typer.Option(help="a bound on the time of each run")] = None,
    as_json: AsJson = False,
) -> None:
    """Compresses a model under several limits, and draws accuracy over latency and size; goes on after a kill."""
    from penjing.models import WHOLE, load_model
    from penjing.planning import check_in_compress
    from penjing.planning import techniques as known
    from penjing.pruning import criteria
    from penjing.sweep import limited_budgets, sweep
    from penjing.targets import find_target

    asked: dict[str, Any] = {
        "target": target, "epochs": epochs, "solver": solver, "criterion": criterion, "threads": threads, "batch": batch,
        "seed": seed, "techniques": named_techniques(techniques, {}),
    }  # fmt: skip
    texts, budget = [one.strip() for one in budgets.split(",") if one.strip()], limits.budget()
    # Before anything is loaded, so that a mistake is reported at once.
    limited_budgets(texts, limit, budget)
    plain = {name: asked[name] for name in ("epochs", "threads", "batch", "seed")}
    check_options({**plain, **training.keywords(), "max_minutes": max_minutes})
    find_target(target)

    def check_names() -> None:
        training.check_names()
        if criterion is not None:
            criteria[criterion]
        for name in asked["techniques"]:
            known[name]
        check_in_compress(solver)

    chosen = load_data(data, seed, check_names)
    loaded = load_model(model, weights, chosen)
    if model.startswith("zoo:") and weights is None:
        printer(as_json)(f"No --weights were given: {model} has random weights, so its accuracy means nothing.")
    with Face(as_json) as face:
        found = sweep(
            loaded.graph(), data=chosen, budgets=texts, limit=limit, budget=budget, out=out, start_from=start_from, say=face,
            watch=face.watch, inputs=loaded.hashes, trained=weights is not None or model.endswith(WHOLE),
            max_minutes=max_minutes, **asked, **places.keywords(), **training.keywords(),
        )  # fmt: skip
    if as_json:
        runs = [{"out": str(one.out), "met": one.met, "report": one.report} for one in found.results]
        front = None if found.comparison is None else asdict(found.comparison)
        print(json.dumps({"out": str(out), "runs": runs, "comparison": front}, indent=2))
    elif found.comparison is not None:
        titles = [
            {**text, "run": one.out.name} for text, one in zip(found.comparison.texts(), found.results, strict=True)
        ]
        table = Table(*titles[0])
        for row in titles:
            table.add_row(*row.values())
        screen = Screen(soft_wrap=True)
        screen.print(table)
        screen.print(f"Drawn on one page: {out / 'index.html'}")
    if not found.met or found.comparison is None:
        raise typer.Exit(NOT_MET)
