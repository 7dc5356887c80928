"""How much each weight or unit matters: one criterion per file, named as in the literature.

A criterion with `level="weight"` gives a saliency tensor for each weight that makes channels; it works at every
granularity. One with `level="unit"` gives a score per unit of each group.
"""

from penjing.prune.criteria._bn_scale import bn_scale
from penjing.prune.criteria._l1 import l1
from penjing.prune.criteria._l2 import l2
from penjing.prune.criteria._random import random
from penjing.prune.criteria._registry import criteria
from penjing.prune.criteria._taylor import taylor

__all__ = ["bn_scale", "criteria", "l1", "l2", "random", "taylor"]
