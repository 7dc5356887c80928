"""The table of the tasks that are given."""

from dataclasses import dataclass
from typing import Any, Literal

from penjing.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class TaskEntry(Entry[type[Any]]):
    """A task: a class, which the user makes with the numbers of classes, labels or heads.

    Attributes:
        better: whether a higher or a lower value of its headline metric is better; "as named" where the user chooses the
            metric.
    """

    better: Literal["higher", "lower", "as named"] = "higher"


tasks = Registry("task", TaskEntry)
