"""When what goes: pure functions of progress, which a training carries out as its callback."""

from penjing.prune.schedules._cubic import cubic
from penjing.prune.schedules._dense_sparse_dense import dense_sparse_dense
from penjing.prune.schedules._growing_reg import growing_reg
from penjing.prune.schedules._iterative import iterative
from penjing.prune.schedules._lasso_bn import lasso_bn
from penjing.prune.schedules._one_shot import one_shot
from penjing.prune.schedules._registry import Chosen, Moment, find, schedules
from penjing.prune.schedules._rewind import rewind
from penjing.prune.schedules._splicing import splicing
from penjing.prune.schedules._targeted_dropout import targeted_dropout

__all__ = [
    "Chosen",
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
