"""What to do where, so that the budget is kept: today, a measured choice among aligned widths and number formats."""

from penjing.plan.choose import Candidate, Choice, choose
from penjing.plan.widths import Width, widths

__all__ = ["Candidate", "Choice", "Width", "choose", "widths"]
