"""The table of distillation signals."""

from collections.abc import Callable

from torch import Tensor

from penjing.registry import Registry

# A signal is called as `signal(student_outputs, teacher_outputs, temperature=…)` and gives a scalar.
signals: Registry[Callable[..., Tensor]] = Registry("distillation signal")
