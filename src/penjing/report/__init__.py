"""report.json → report.html: checks the report of a finished run, sums it up in one sentence, and draws it on one page.

Reads and writes JSON-like dicts only; nothing here measures, and nothing here imports torch.
"""

from penjing.report._compare import Comparison, compare, write_comparison
from penjing.report._files import build, read, write
from penjing.report._headline import headline
from penjing.report._page import summary
from penjing.report._robustness import robustness
from penjing.report._words import LEFT_ALONE, reason, row, words

__all__ = [
    "LEFT_ALONE", "Comparison", "build", "compare", "headline", "read", "reason", "robustness", "row", "summary", "words",
    "write", "write_comparison",
]  # fmt: skip
