"""What a finished run of `compress` returns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing import report as pages
from penjing.graph import Graph
from penjing.lines import html_table


@dataclass(frozen=True, repr=False)
class Result:
    """A finished run.

    Attributes:
        graph: the compressed graph.
        report: what `report.json` holds.
        out: the folder with everything.
    """

    graph: Graph
    report: dict[str, Any]
    out: Path

    @property
    def met(self) -> bool:
        """Whether every limit of the budget was kept, as measured."""
        return bool(self.report["met"])

    @property
    def headline(self) -> str:
        """One sentence: how much faster, how much smaller, at what loss, on what."""
        return str(self.report["headline"])

    def __repr__(self) -> str:
        return f"Result: {self.headline}\n  {self._verdict()} The proof: {self.out / 'report.html'}"

    def _repr_html_(self) -> str:
        rows = pages.summary(self.report)
        notes = [*self.report.get("notes", ()), f"{self._verdict()} The proof: {self.out / 'report.html'}"]
        return html_table(self.headline, ("", "original", "compressed", ""), rows, notes)

    def _verdict(self) -> str:
        if not self.report["budget"]:
            return "No budget was set."
        return "The budget was met." if self.met else "The budget was not met."
