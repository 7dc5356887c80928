"""The options that say which modules a run may change, and how."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

TWICE = "may be given many times"
Patterns = Annotated[list[str] | None, typer.Option(help=f"pattern of module paths; {TWICE}")]


@dataclass(frozen=True)
class PlacePatterns:
    """Patterns of module paths, such as `layer1.*`; a field's annotation describes its option."""

    include: Annotated[list[str] | None, typer.Option(help=f"prune these modules alone; {TWICE}")] = None
    exclude: Annotated[
        list[str] | None, typer.Option(help=f"leave these modules as they are: not pruned, not quantised; {TWICE}")
    ] = None
    keep_channels: Annotated[
        list[str] | None, typer.Option(help=f"don't prune these modules; they may still be quantised; {TWICE}")
    ] = None
    keep_float: Annotated[
        list[str] | None, typer.Option(help=f"don't quantise these modules; they may still be pruned; {TWICE}")
    ] = None

    def keywords(self) -> dict[str, Any]:
        """Returns the options as keywords of the verb `compress`."""
        return {name: patterns or [] for name, patterns in vars(self).items()}
