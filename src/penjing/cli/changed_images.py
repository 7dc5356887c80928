"""The option that judges files on changed images, and how that is shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from penjing.cli.screen import Screen

OnChangedImages = Annotated[
    bool,
    typer.Option(
        "--robustness",
        help="also judge both files on images under noise, blur, changed light and JPEG",
    ),
]


def show_robustness(report: Mapping[str, Any], out: Path) -> None:
    """Prints how both files do on changed images."""
    from penjing.report import robustness

    told = robustness(report)
    assert told is not None  # it was judged
    screen, table = Screen(), Table("on changed images", *told.severities)
    for name, cells in told.rows:
        table.add_row(name, *cells)
    screen.print(table)
    screen.print(f"Unchanged: {told.unchanged}. {told.sentence} In the report, too: {out / 'report.html'}")
