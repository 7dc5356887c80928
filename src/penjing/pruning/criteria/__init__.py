"""How much each weight or unit matters: one criterion per file, named as in the literature.

A criterion with `level="weight"` gives a saliency tensor for each weight that makes channels; it works at every
granularity. One with `level="unit"` gives a score per unit of each group.
"""

from penjing.pruning.criteria._activation_mean import activation_mean
from penjing.pruning.criteria._adversarial import adversarial
from penjing.pruning.criteria._apoz import apoz
from penjing.pruning.criteria._attention import attention
from penjing.pruning.criteria._bn_scale import bn_scale
from penjing.pruning.criteria._fisher import fisher
from penjing.pruning.criteria._fpgm import fpgm
from penjing.pruning.criteria._frobenius_l1 import frobenius_l1
from penjing.pruning.criteria._grasp import grasp
from penjing.pruning.criteria._hrank import hrank
from penjing.pruning.criteria._l1 import l1
from penjing.pruning.criteria._l2 import l2
from penjing.pruning.criteria._lasso import lasso
from penjing.pruning.criteria._nisp import nisp
from penjing.pruning.criteria._obd import obd
from penjing.pruning.criteria._obs import obs
from penjing.pruning.criteria._random import random
from penjing.pruning.criteria._registry import Compensated, CriterionEntry, criteria, makers
from penjing.pruning.criteria._snip import snip
from penjing.pruning.criteria._sss import sss
from penjing.pruning.criteria._synflow import synflow
from penjing.pruning.criteria._taylor import taylor
from penjing.pruning.criteria._taylor2 import taylor2
from penjing.pruning.criteria._thinet import thinet

__all__ = [
    "Compensated",
    "CriterionEntry",
    "activation_mean",
    "adversarial",
    "apoz",
    "attention",
    "bn_scale",
    "criteria",
    "fisher",
    "fpgm",
    "frobenius_l1",
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
