"""Losses by which a small model learns from the model that it was made of (signals): one file each, and their balance.

Nothing here trains; `penjing.recover` does, with these losses.
"""

from penjing.distillation._combine import combine
from penjing.distillation._registry import signals
from penjing.distillation._soft_labels import soft_labels
from penjing.distillation._suited import suited
from penjing.distillation._values import values

__all__ = ["combine", "signals", "soft_labels", "suited", "values"]
