"""The public verbs that compose a technique with training, planning, measuring and judging."""

from penjing.verbs._early_exit import early_exit
from penjing.verbs._explain import explain
from penjing.verbs._prune import prune
from penjing.verbs._quantize import quantize
from penjing.verbs._slimmable import slimmable

__all__ = ["early_exit", "explain", "prune", "quantize", "slimmable"]
