"""The table of distillation signals."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from penjing.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class SignalEntry(Entry[Callable[..., Tensor]]):
    """A registered signal, called as `signal(student_outputs, teacher_outputs, temperature=…)`; it gives a scalar."""


signals = Registry("distillation signal", SignalEntry)
