"""What the commands of one technique alone share: their options, and the way from a model to a folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penjing.cli.compressing import SPEC, AsJson, check_options, finish, load_data, printer

if TYPE_CHECKING:
    from penjing.data import Data
    from penjing.graph import Graph

Verb = Callable[["Graph", "Data | None"], "Graph"]
Include = Annotated[
    list[str] | None, typer.Option(help="pattern of module paths, to change these alone; may be given many times")
]
STAYS = "pattern of module paths that stay as they are; may be given many times"
# As in `compress`, where what isn't pruned may still be quantised, and the other way round; alone it is the same.
Unpruned = Annotated[list[str] | None, typer.Option("--exclude", "--keep-channels", help=STAYS)]
Unrounded = Annotated[list[str] | None, typer.Option("--exclude", "--keep-float", help=STAYS)]


@dataclass(frozen=True)
class PlaceOptions:
    """The options that say on what a result is judged, where it runs, and where the files go."""

    data: Annotated[
        str | None,
        typer.Option("--data", help=f"data to look at and to judge on; without, only time is measured. {SPEC}"),
    ] = None
    weights: Annotated[
        Path | None, typer.Option(help="weights for the model: .safetensors, or .pt of plain tensors")
    ] = None
    target: Annotated[str, typer.Option(help="the runtime; see penjing targets")] = "onnxruntime"
    threads: Annotated[int, typer.Option(min=1, help="threads of the runtime")] = 1
    batch: Annotated[int, typer.Option(min=1, help="batch size at which latency is measured")] = 1
    seed: Annotated[int, typer.Option(help="seed of all random choices")] = 0
    out: Annotated[Path, typer.Option(help="folder for everything that is written")] = Path("out")
    as_json: AsJson = False

    def check(self) -> None:
        """Makes sure of what can be known before anything is loaded.

        Raises:
            PenjingError: an option has a value that isn't allowed, or the runtime can't be used.
        """
        from penjing.targets import find_target

        check_options({"threads": self.threads, "batch": self.batch, "seed": self.seed})
        find_target(self.target)


def run_alone(
    name: str, model: str, options: PlaceOptions, verb: Verb, check: Callable[[], Any], choices: Mapping[str, Any]
) -> None:
    """Carries one technique out on the model that a command was given, and shows what came of it.

    Args:
        name: the technique's name.
        model: the model as the user named it.
        options: the options that all of these commands have.
        verb: carries the technique out on a graph, given the data; None where there are none.
        check: makes sure that the choices' names are known, before anything is loaded.
        choices: what the technique is told besides the options that all of these commands have.

    Raises:
        PenjingError: bad input.
    """
    from penjing.models import WHOLE, load_model
    from penjing.planning import Deployment
    from penjing.run.one_technique import OneTechnique, carry_out_alone
    from penjing.run.request import calibrated

    options.check()
    data: Data | None = None
    if options.data is None:
        check()
    else:
        data = calibrated(load_data(options.data, options.seed, check))
    loaded = load_model(model, options.weights, data)
    say = printer(options.as_json)
    if model.startswith("zoo:") and options.weights is None:
        say(f"No --weights were given: {model} has random weights, so its accuracy means nothing.")
    asked = OneTechnique(
        name,
        lambda graph: verb(graph, data),
        plain(choices),
        data,
        Deployment(options.target, options.threads, options.batch),
        options.seed,
        options.weights is not None or model.endswith(WHOLE),
    )
    finish(carry_out_alone(loaded.graph(), asked, options.out, say, loaded.hashes), options.out, options.as_json)


def plain(value: Any) -> Any:
    """Returns a choice as JSON holds it: with lists for tuples."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    return value
