"""The command that quantises and does nothing else."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from penjing.cli.app import app
from penjing.cli.compressing import Model
from penjing.cli.one_technique import Include, PlaceOptions, Unrounded, run_alone
from penjing.cli.spread import takes_options
from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.data import Data
    from penjing.graph import Graph


@app.command("quantize")
@takes_options
def quantize_command(
    model: Model,
    *,
    grid: Annotated[
        str, typer.Option(help="the weights' grid, such as int8 or codebook:16; see penjing list grids")
    ] = "int8",
    activations: Annotated[
        str,
        typer.Option(
            help="the activations' grid, such as uint8; auto is what the target prefers, dynamic and none need no data"
        ),
    ] = "auto",
    observer: Annotated[
        str, typer.Option(help="how the activations' ranges are found; see penjing list observers")
    ] = "minmax",
    grain: Annotated[
        str, typer.Option(help="which weights share a scale: tensor, channel, group:SIZE; auto is the grid's own")
    ] = "auto",
    rounding: Annotated[str, typer.Option(help="how weights are rounded; see penjing list roundings")] = "nearest",
    corrections: Annotated[
        list[str] | None,
        typer.Option(
            "--correction",
            help="what is corrected around the rounding; see penjing list corrections; may be given many times",
        ),
    ] = None,
    drop: Annotated[
        str | None,
        typer.Option(
            help="put layers back to more bits until the metric falls by no more than this, 0.01, or 2% of it"
        ),
    ] = None,
    include: Include = None,
    exclude: Unrounded = None,
    options: PlaceOptions,
) -> None:
    """Rounds weights and activations to few bits, without training, and measures the result beside the original."""
    choices: dict[str, Any] = {
        "activations": None if activations == "none" else activations,
        "observer": observer,
        "grain": grain,
        "rounding": rounding,
        "corrections": corrections or "auto",
        "drop": drop,
        "include": include or (),
        "exclude": exclude or (),
    }

    def check() -> None:
        from penjing.quantization import find_grid

        find_grid(grid)
        if activations not in ("none", "dynamic") and options.data is None:
            raise PenjingError(
                "The ranges of activations are found on data: give --data, or --activations none to round weights alone."
            )

    def verb(graph: "Graph", data: "Data | None") -> "Graph":
        from penjing.verbs import quantize

        return quantize(graph, data, weights=grid, **choices, target=options.target, seed=options.seed)

    run_alone("quantize", model, options, verb, check, {"weights": grid, **choices})
