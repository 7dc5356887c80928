"""The table of distillation schedules."""

from collections.abc import Callable
from dataclasses import dataclass

from penjing.registry import Entry, Registry

Course = Callable[[float], tuple[float, float]]
"""From the share of the training that is done, 0 to 1, to the weights of the task and of the guidance; 0 leaves one out."""


@dataclass(frozen=True, kw_only=True)
class ScheduleEntry(Entry[Course]):
    """A registered schedule."""


distillation_schedules = Registry("distillation schedule", ScheduleEntry)
"""Each is a function in a file of its own."""
