"""The rule for arguments that are tasks."""

from penjing.checks import Rule
from penjing.tasks._task import Task

TASK = Rule(
    "a penjing.tasks.Task, such as penjing.tasks.Classification()",
    lambda value: isinstance(value, Task) and not isinstance(value, type),
)
