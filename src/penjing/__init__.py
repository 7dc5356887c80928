"""Penjing makes trained PyTorch models small and fast on the device they must run on, and proves it by measuring there.

Example:
    >>> import penjing as pj
    >>> data = pj.data.digits()
    >>> result = pj.compress(model, example, data=data, budget=pj.Budget(latency="0.5x"))  # doctest: +SKIP

Public names are imported when they are first used: PyTorch alone takes seconds, which `penjing --help` has no use for.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from penjing.version import __version__

if TYPE_CHECKING:
    from penjing import data, tasks, zoo
    from penjing.adaptive import Exits, Slimmable
    from penjing.budget import Budget
    from penjing.compress import Result, compress
    from penjing.data import Data
    from penjing.errors import PenjingError
    from penjing.factorization import factorize
    from penjing.graph import Graph, Option, Place, Plan
    from penjing.graph.capture.capture import capture
    from penjing.graph.channels.channels import channels
    from penjing.importing.keras import from_keras
    from penjing.importing.onnx import from_onnx
    from penjing.planning import apply, plan
    from penjing.storage import load
    from penjing.sweep import Sweep, sweep
    from penjing.targets import lower, measure
    from penjing.training import recover
    from penjing.verbs import early_exit, explain, prune, quantize, slimmable

__all__ = [
    "Budget",
    "Data",
    "Exits",
    "Graph",
    "Option",
    "PenjingError",
    "Place",
    "Plan",
    "Result",
    "Slimmable",
    "Sweep",
    "__version__",
    "apply",
    "capture",
    "channels",
    "compress",
    "data",
    "early_exit",
    "explain",
    "factorize",
    "from_keras",
    "from_onnx",
    "load",
    "lower",
    "measure",
    "plan",
    "prune",
    "quantize",
    "recover",
    "slimmable",
    "sweep",
    "tasks",
    "zoo",
]

_PACKAGES = ("data", "tasks", "zoo")
_INNER = (  # no public names, and yet at hand as attributes, without an import of their own
    "adaptive", "capabilities", "distillation", "evidence", "factorization", "graph", "planning", "pruning",
    "quantization", "report", "storage", "targets", "training",
)  # fmt: skip
_HOMES = {  # the module of every other public name
    "Budget": "penjing.budget",
    "Data": "penjing.data",
    "Exits": "penjing.adaptive",
    "Graph": "penjing.graph",
    "Option": "penjing.graph",
    "PenjingError": "penjing.errors",
    "Place": "penjing.graph",
    "Plan": "penjing.graph",
    "Result": "penjing.compress",
    "Slimmable": "penjing.adaptive",
    "Sweep": "penjing.sweep",
    "apply": "penjing.planning",
    "capture": "penjing.graph.capture.capture",
    "channels": "penjing.graph.channels.channels",
    "compress": "penjing.compress",
    "early_exit": "penjing.verbs",
    "explain": "penjing.verbs",
    "factorize": "penjing.factorization",
    "from_keras": "penjing.importing.keras",
    "from_onnx": "penjing.importing.onnx",
    "load": "penjing.storage",
    "lower": "penjing.targets",
    "measure": "penjing.targets",
    "plan": "penjing.planning",
    "prune": "penjing.verbs",
    "quantize": "penjing.verbs",
    "recover": "penjing.training",
    "slimmable": "penjing.verbs",
    "sweep": "penjing.sweep",
}


class _Package(ModuleType):
    """A package in which a verb keeps its name: Python's import binds `penjing.compress`, the module, to `compress` here."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

if not TYPE_CHECKING:  # type checkers would take any name for a public one

    def __getattr__(name: str) -> Any:
        """Imports a public name where it is first used."""
        if name in _PACKAGES or name in _INNER:
            return importlib.import_module(f"penjing.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'penjing' has no attribute '{name}'")
        value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return value

    def __dir__() -> list[str]:
        """Lists the public names, those too that aren't imported yet."""
        return sorted({*globals(), *__all__})
