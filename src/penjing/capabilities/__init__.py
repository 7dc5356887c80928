"""What each target can do: one record per target, in one file each, and the table that finds them by name.

Nothing here runs or needs a runtime. Techniques and planners read these records, and a target's lowering keeps to them.
"""

from penjing.capabilities._records import Capabilities, Condition, Largest, Numbers, Placement, Zeros
from penjing.capabilities._table import DEFAULT, TARGETS, add, find

__all__ = [
    "DEFAULT",
    "TARGETS",
    "Capabilities",
    "Condition",
    "Largest",
    "Numbers",
    "Placement",
    "Zeros",
    "add",
    "find",
]
