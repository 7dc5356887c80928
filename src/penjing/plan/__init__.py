"""What to do where, so that the budget is kept: a measured choice among aligned widths and number formats, bits for every
layer under a budget of bytes, and layers that go back to more bits until the metric holds.
"""

from penjing.plan.bits import Bits, choose_bits
from penjing.plan.choose import Candidate, Choice, choose
from penjing.plan.control import hold_metric
from penjing.plan.knapsack import Option, OverBudget, solve
from penjing.plan.widths import Width, widths

__all__ = [
    "Bits",
    "Candidate",
    "Choice",
    "Option",
    "OverBudget",
    "Width",
    "choose",
    "choose_bits",
    "hold_metric",
    "solve",
    "widths",
]
