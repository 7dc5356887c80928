"""The command that prunes and does nothing else."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from penjing.cli.app import app
from penjing.cli.compressing import Model, Units
from penjing.cli.one_technique import Include, PlaceOptions, Unpruned, run_alone
from penjing.cli.spread import takes_options
from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.data import Data
    from penjing.graph import Graph


@app.command("prune")
@takes_options
def prune_command(
    model: Model,
    *,
    amount: Annotated[
        float | None,
        typer.Option(help="share of the units that goes, from 0 to below 1; not where a name says it, as 2:4 does"),
    ] = None,
    criterion: Annotated[str, typer.Option(help="how units are ranked; see penjing list criteria")] = "l2",
    granularity: Annotated[
        str, typer.Option(help="which weights stand or fall together; see penjing list granularities")
    ] = "filter",
    allocation: Annotated[
        str, typer.Option(help="how the amount is spread over the model; see penjing list allocations")
    ] = "uniform",
    round_to: Annotated[int | None, typer.Option(min=1, help="keep multiples of this many units")] = None,
    min_channels: Annotated[int, typer.Option(min=1, help="units that each group of channels keeps at least")] = 1,
    units: Units = "auto",
    include: Include = None,
    exclude: Unpruned = None,
    options: PlaceOptions,
) -> None:
    """Removes what matters least, once and without training, and measures the result beside the original."""
    choices: dict[str, Any] = {
        "amount": amount,
        "criterion": criterion,
        "granularity": granularity,
        "allocation": allocation,
        "round_to": round_to,
        "min_channels": min_channels,
        "units": units,
        "include": include or (),
        "exclude": exclude or (),
    }

    def check() -> None:
        from penjing.pruning import PruningSettings, check_choices, criteria

        check_choices(PruningSettings(amount, criterion, granularity, allocation))
        if criteria[criterion].needs & {"data", "labels", "gradients"} and options.data is None:
            raise PenjingError(
                f"--criterion {criterion} looks at data: give --data, or take --criterion l2, which needs none."
            )

    def verb(graph: "Graph", data: "Data | None") -> "Graph":
        from penjing.pruning import prune

        return prune(graph, **choices, data=data, seed=options.seed)

    run_alone("prune", model, options, verb, check, choices)
