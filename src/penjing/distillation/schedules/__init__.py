"""Distillation schedules: how much the teacher counts, and when. One file each."""

from penjing.distillation.schedules import _anneal, _joint, _staged  # noqa: F401  registers
from penjing.distillation.schedules._registry import Course, ScheduleEntry, distillation_schedules

__all__ = ["Course", "ScheduleEntry", "distillation_schedules"]
