"""Distillation signals: what of a teacher the student is asked for. One file each."""

from penjing.distillation.signals import (  # noqa: F401  registers
    _attention,
    _blocks,
    _contrastive,
    _dkd,
    _factor,
    _features,
    _gradient_sharing,
    _gradients,
    _hard_labels,
    _hints,
    _logit_standardization,
    _relations,
    _soft_labels,
    _transformer,
    _values,
)
from penjing.distillation.signals._heads import Heads
from penjing.distillation.signals._registry import Signal, SignalEntry, Taps, signals
from penjing.distillation.signals._soft_labels import holds_labels, soft_labels
from penjing.distillation.signals._suited import suited
from penjing.distillation.signals._values import values

__all__ = ["Heads", "Signal", "SignalEntry", "Taps", "holds_labels", "signals", "soft_labels", "suited", "values"]
