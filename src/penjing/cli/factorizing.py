"""The command that factorises layers and does nothing else."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penjing.cli.app import app
from penjing.cli.compressing import Model
from penjing.cli.one_technique import Include, PlaceOptions, Unpruned, run_alone
from penjing.cli.spread import takes_options
from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.data import Data
    from penjing.graph import Graph

RANKS = (
    "a rule such as energy:0.9 or speedup:2, see penjing list rank_rules; or the ranks themselves, 16 or 24,32; or those of one "
    "layer, LAYER=24,32, given once for each layer that is to be factorised"
)


@app.command("factorize")
@takes_options
def factorize_command(
    model: Model,
    *,
    method: Annotated[str, typer.Option(help="the decomposition, or auto; see penjing list decompositions")] = "auto",
    ranks: Annotated[list[str] | None, typer.Option(help=RANKS, show_default="energy:0.9")] = None,
    metric: Annotated[
        str,
        typer.Option(help="how errors count; auto looks at the data where there are some; see penjing list metrics"),
    ] = "auto",
    form: Annotated[str, typer.Option(help="how factors are executed; see penjing list forms")] = "chain",
    round_to: Annotated[
        int | None, typer.Option(min=1, help="ranks are multiples of this; by default of what the target likes")
    ] = None,
    include: Include = None,
    exclude: Unpruned = None,
    options: PlaceOptions,
) -> None:
    """Turns layers into chains of smaller ones, by low rank, and measures the result beside the original."""
    choices: dict[str, Any] = {
        "method": method,
        "ranks": read_ranks(ranks or ["energy:0.9"]),
        "metric": metric,
        "form": form,
        "round_to": round_to,
        "include": include or (),
        "exclude": exclude or (),
    }

    def check() -> None:
        from penjing.factorization import FactorizationSettings, metrics

        FactorizationSettings(**choices, target=options.target)
        if metric != "auto" and metrics[metric].needs and options.data is None:
            raise PenjingError(
                f"--metric {metric} looks at data: give --data, or take --metric weights, which needs none."
            )

    def verb(graph: "Graph", data: "Data | None") -> "Graph":
        from penjing.factorization import factorize

        return factorize(graph, **choices, data=data, target=options.target, seed=options.seed)

    run_alone("factorize", model, options, verb, check, choices)


def read_ranks(texts: Sequence[str]) -> "str | int | tuple[int, ...] | dict[str, int | tuple[int, ...]]":
    """Returns the ranks that `--ranks` means, as the verb takes them.

    Raises:
        PenjingError: the option was given several times, and not for a layer each time; or what stands behind LAYER= isn't
            numbers.
    """
    by_layer = [text.rpartition("=") for text in texts]
    if not any(sign for _, sign, _ in by_layer):
        if len(texts) > 1:
            raise PenjingError(
                f"--ranks was given {len(texts)} times ({', '.join(texts)}): give it once, or as LAYER=RANKS for each layer."
            )
        return texts[0] if (found := _numbers(texts[0])) is None else found
    ranks: dict[str, int | tuple[int, ...]] = {}
    for text, (layer, sign, behind) in zip(texts, by_layer, strict=True):
        found = _numbers(behind)
        if not sign or not layer or found is None:
            raise PenjingError(f"--ranks '{text}' isn't LAYER=RANKS, such as conv1=24,32 or fc=16.")
        if layer in ranks:
            raise PenjingError(f"--ranks names the layer '{layer}' twice.")
        ranks[layer] = found
    return ranks


def _numbers(text: str) -> int | tuple[int, ...] | None:
    """Reads "16" and "24,32"; None for anything else."""
    if not re.fullmatch(r"\s*-?\d+(\s*,\s*-?\d+)*\s*", text):
        return None
    found = tuple(map(int, text.split(",")))
    return found[0] if len(found) == 1 else found
