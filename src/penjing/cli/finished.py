"""Commands on finished runs: verify, report, compare."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Column, Table

from penjing.cli.app import app
from penjing.cli.changed_images import OnChangedImages, show_robustness
from penjing.cli.compressing import NOT_MET, AsJson, RunData
from penjing.cli.remembered import data_of, folder_of
from penjing.cli.screen import Screen, styled

if TYPE_CHECKING:
    from penjing.run.recheck import Recheck

OutDir = Annotated[Path, typer.Argument(help="the folder that a run wrote")]


@app.command("verify")
def verify_command(
    out_dir: OutDir, data: RunData = None, on_changed_images: OnChangedImages = False, as_json: AsJson = False
) -> None:
    """Measures a finished result again and compares it with its report."""
    from penjing.explanation import check_images
    from penjing.run.recheck import recheck
    from penjing.run.robustness import add_robustness

    chosen = data_of(folder_of(out_dir), data)
    if on_changed_images:
        check_images(chosen)
    found = recheck(out_dir, chosen)
    judged = add_robustness(out_dir, chosen) if on_changed_images else {}
    if as_json:
        more = {"robustness": judged["robustness"]} if judged else {}
        print(json.dumps({"met": found.met, "agrees": found.agrees, "measured": found.measured, **more}, indent=2))
    else:
        _show(found)
        if judged:
            show_robustness(judged, out_dir)
    if not (found.met and found.agrees):
        raise typer.Exit(NOT_MET)


def _show(found: "Recheck") -> None:
    table = Table("", "report.json", "now")
    for name, then, now in found.rows():
        table.add_row(name, then, now)
    screen = Screen()
    screen.print(table)
    if found.agrees:
        screen.print("The file does what its report says.")
    elif found.same_file:
        data = (
            "although the data are those of the run. Is the runtime another version?"
            if found.same_data
            else "and these aren't the data of the run, or they were loaded in another way."
        )
        text = f"The file is the one of the report, but its metric differs, {data}"
        screen.print(styled(text, "red"))
    else:
        screen.print(styled("The file differs from its report.", "red"))
    if not found.met:
        screen.print(styled("The budget is not met.", "red"))
    elif found.agrees:  # a budget that a wrong file or wrong data keep tells nothing
        screen.print("The budget is met.")


@app.command("report")
def report_command(out_dir: OutDir, as_json: AsJson = False) -> None:
    """Builds report.html again from report.json."""
    from penjing import report

    page = report.build(out_dir)
    if as_json:
        print(json.dumps({"out": str(page), "report": report.read(out_dir)}, indent=2))
    else:
        Screen(soft_wrap=True).print(f"Written: {page}")


@app.command("compare")
def compare_command(
    out_dirs: Annotated[
        list[Path], typer.Argument(metavar="OUT…", help="the folders that two or more runs wrote, or that of a sweep")
    ],
    page: Annotated[Path, typer.Option(help="the page to write")] = Path("comparison.html"),
    as_json: AsJson = False,
) -> None:
    """Puts the results of several runs in one table, and draws them on one page."""
    from penjing import report

    found = report.compare([run for folder in out_dirs for run in report.runs_of(folder)])
    written = report.write_comparison(found, page)
    if as_json:
        print(json.dumps({"page": str(written), **asdict(found)}, indent=2))
        return
    texts, screen = found.texts(), Screen()
    if len(places := {row["on"] for row in texts}) == 1:  # room for what differs
        screen.print(f"All on {places.pop()}.")
        texts = [{title: text for title, text in row.items() if title != "on"} for row in texts]
    table = Table(*(Column(title, overflow="fold") for title in texts[0]), box=SIMPLE)
    for row in texts:
        table.add_row(*row.values())
    screen.print(table)
    screen.print(f"Written: {written}")
