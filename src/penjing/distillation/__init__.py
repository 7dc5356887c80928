"""What a small model can learn from the model that it was made of: signal × balance × schedule, each a table of choices.

Nothing here trains: `penjing.training` does, with these losses.
"""

from penjing.distillation.balances import Balance, balances
from penjing.distillation.comparison import Comparison, Seen, counted_positions
from penjing.distillation.parameter_gradients import parameter_gradients
from penjing.distillation.schedules import distillation_schedules
from penjing.distillation.signals import Signal, signals, soft_labels, suited, values

__all__ = [
    "Balance",
    "Comparison",
    "Seen",
    "Signal",
    "balances",
    "counted_positions",
    "distillation_schedules",
    "parameter_gradients",
    "signals",
    "soft_labels",
    "suited",
    "values",
]
