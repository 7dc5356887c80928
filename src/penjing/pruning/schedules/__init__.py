"""Schedules: when weights or units go in a training. Each is a pure function of progress, and a callback carries it out."""

from penjing.pruning.schedules._cubic import cubic
from penjing.pruning.schedules._dense_sparse_dense import dense_sparse_dense
from penjing.pruning.schedules._growing_reg import growing_reg
from penjing.pruning.schedules._iterative import iterative
from penjing.pruning.schedules._lasso_bn import lasso_bn
from penjing.pruning.schedules._one_shot import one_shot
from penjing.pruning.schedules._registry import ChosenSchedule, Moment, find, schedules
from penjing.pruning.schedules._rewind import rewind
from penjing.pruning.schedules._splicing import splicing
from penjing.pruning.schedules._targeted_dropout import targeted_dropout

__all__ = [
    "ChosenSchedule",
    "Moment",
    "cubic",
    "dense_sparse_dense",
    "find",
    "growing_reg",
    "iterative",
    "lasso_bn",
    "one_shot",
    "rewind",
    "schedules",
    "splicing",
    "targeted_dropout",
]
