"""Penjing makes trained PyTorch models small and fast on the device they must run on, and proves it by measuring there.

Example:
    >>> import penjing as pj
    >>> data = pj.data.digits()
    >>> result = pj.compress(model, example, data=data, budget=pj.Budget(latency="0.5x"))  # doctest: +SKIP
"""

from penjing import data, tasks, zoo
from penjing.budget import Budget
from penjing.compress import Result, compress
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph, capture, channels, load
from penjing.targets import lower, measure
from penjing.train import recover
from penjing.verbs import prune, quantize
from penjing.version import __version__

__all__ = [
    "Budget",
    "Data",
    "Graph",
    "PenjingError",
    "Result",
    "__version__",
    "capture",
    "channels",
    "compress",
    "data",
    "load",
    "lower",
    "measure",
    "prune",
    "quantize",
    "recover",
    "tasks",
    "zoo",
]
