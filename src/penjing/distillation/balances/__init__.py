"""Balances: how much the teacher counts beside the task. One file each."""

from penjing.distillation.balances import _auto, _fixed, _pcgrad, _uncertainty  # noqa: F401  registers
from penjing.distillation.balances._registry import Backward, Balance, BalanceEntry, balances

__all__ = ["Backward", "Balance", "BalanceEntry", "balances"]
