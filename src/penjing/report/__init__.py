"""report.json → report.html: checks the report of a finished run, sums it up in one sentence, and draws it on one page.

Reads and writes JSON-like dicts only; nothing here measures, and nothing here imports torch.
"""

from penjing.report._compare import Comparison, compare, write_comparison
from penjing.report._files import build, read, write
from penjing.report._front import SWEEP, note_runs, runs_of, write_front
from penjing.report._headline import headline
from penjing.report._page import summary
from penjing.report._robustness import robustness
from penjing.report._words import LEFT_ALONE, reason, row, words

__all__ = [
    "LEFT_ALONE", "SWEEP", "Comparison", "build", "compare", "headline", "note_runs", "read", "reason", "robustness", "row",
    "runs_of", "summary", "words", "write", "write_comparison", "write_front",
]  # fmt: skip
