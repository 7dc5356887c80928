"""What a small model can learn from others: signal × balance × schedule × teacher, each a table of choices.

Nothing here trains: `penjing.training` does, with these losses.
"""

from penjing.distillation.balances import Balance, balances
from penjing.distillation.comparison import Comparison, Seen, counted_positions
from penjing.distillation.parameter_gradients import parameter_gradients
from penjing.distillation.schedules import distillation_schedules
from penjing.distillation.signals import Heads, Signal, signals, soft_labels, suited, values
from penjing.distillation.teachers import (
    Confidence,
    CrossModal,
    Ema,
    Mean,
    One,
    Stored,
    Teacher,
    data_free,
    teachers,
)

__all__ = [
    "Balance",
    "Comparison",
    "Confidence",
    "CrossModal",
    "Ema",
    "Heads",
    "Mean",
    "One",
    "Seen",
    "Signal",
    "Stored",
    "Teacher",
    "balances",
    "counted_positions",
    "data_free",
    "distillation_schedules",
    "parameter_gradients",
    "signals",
    "soft_labels",
    "suited",
    "teachers",
    "values",
]
