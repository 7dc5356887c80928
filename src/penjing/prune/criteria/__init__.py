"""How much each weight or unit matters: one criterion per file, named as in the literature.

A criterion with `level="weight"` gives a saliency tensor for each weight that makes channels; it works at every
granularity. One with `level="unit"` gives a score per unit of each group.
"""

from penjing.prune.criteria._activation_mean import activation_mean
from penjing.prune.criteria._adversarial import adversarial
from penjing.prune.criteria._apoz import apoz
from penjing.prune.criteria._attention import attention
from penjing.prune.criteria._bn_scale import bn_scale
from penjing.prune.criteria._fisher import fisher
from penjing.prune.criteria._fpgm import fpgm
from penjing.prune.criteria._grasp import grasp
from penjing.prune.criteria._hrank import hrank
from penjing.prune.criteria._l1 import l1
from penjing.prune.criteria._l2 import l2
from penjing.prune.criteria._lasso import lasso
from penjing.prune.criteria._nisp import nisp
from penjing.prune.criteria._obd import obd
from penjing.prune.criteria._obs import obs
from penjing.prune.criteria._random import random
from penjing.prune.criteria._registry import Compensated, criteria, makers
from penjing.prune.criteria._snip import snip
from penjing.prune.criteria._sss import sss
from penjing.prune.criteria._synflow import synflow
from penjing.prune.criteria._taylor import taylor
from penjing.prune.criteria._taylor2 import taylor2
from penjing.prune.criteria._thinet import thinet

__all__ = [
    "Compensated",
    "activation_mean",
    "adversarial",
    "apoz",
    "attention",
    "bn_scale",
    "criteria",
    "fisher",
    "fpgm",
    "grasp",
    "hrank",
    "l1",
    "l2",
    "lasso",
    "makers",
    "nisp",
    "obd",
    "obs",
    "random",
    "snip",
    "sss",
    "synflow",
    "taylor",
    "taylor2",
    "thinet",
]
