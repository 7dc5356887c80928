"""The options that make a budget: one for each limit."""

from dataclasses import dataclass
from typing import Annotated

import typer

from penjing.budget import Budget


@dataclass(frozen=True)
class BudgetOptions:
    """What the options of a budget were given; the fields are those of `Budget`."""

    latency: Annotated[str | None, typer.Option(help="limit: 5ms, or 0.5x of the original's")] = None
    size: Annotated[str | None, typer.Option(help="limit: 1MB, or 0.25x of the original's")] = None
    drop: Annotated[
        str | None,
        typer.Option(
            help="largest fall of the metric: 0.01 is a point, 2% is relative to the original's; from 0.5 on '2 units'"
        ),
    ] = None
    macs: Annotated[str | None, typer.Option(help="limit on multiply-accumulates: 20M, or 0.5x of the original's")] = (
        None
    )
    peak_memory: Annotated[
        str | None,
        typer.Option(
            help="limit on the activations that are alive at once: 64KB, 0.5x of the original's, or 0.5xL2 of the device"
        ),
    ] = None
    largest_tensor: Annotated[
        str | None,
        typer.Option(
            help="limit on the largest activation or weight: 64KB, 0.5x of the original's, or 0.5xL2 of the device"
        ),
    ] = None
    layers: Annotated[
        str | None, typer.Option(help="limit on the number of layers that multiply: 20, or 0.5x of the original's")
    ] = None
    energy: Annotated[
        str | None, typer.Option(help="limit on the energy of a sample, as estimated: 2mJ, or 0.5x of the original's")
    ] = None

    def budget(self) -> Budget:
        """Returns the budget.

        Raises:
            PenjingError: a limit can't be read.
        """
        return Budget(**vars(self))
