"""The ground floor: a captured model as a graph, its costs, its channels, and surgery on them."""

from typing import TYPE_CHECKING, Any

from penjing.graph.capture.capture import capture
from penjing.graph.channels.branches import Branch, branches, remove_branches
from penjing.graph.channels.channels import AxisEntry, Channels, Group, Pinned, channels
from penjing.graph.channels.heads import heads
from penjing.graph.cost import Cost, Row
from penjing.graph.edit.fold import fold_batch_norms
from penjing.graph.edit.kernels import Kernel, kernels, shrink_kernels
from penjing.graph.edit.surgery import remove
from penjing.graph.graph import Graph
from penjing.graph.inputs import Input
from penjing.graph.places import Option, Place, Plan
from penjing.graph.ranges import Ranges

if TYPE_CHECKING:
    from penjing.storage import load, load_exported

__all__ = [
    "AxisEntry",
    "Branch",
    "Channels",
    "Cost",
    "Graph",
    "Group",
    "Input",
    "Kernel",
    "Option",
    "Pinned",
    "Place",
    "Plan",
    "Ranges",
    "Row",
    "branches",
    "capture",
    "channels",
    "fold_batch_norms",
    "heads",
    "kernels",
    "load",
    "load_exported",
    "remove",
    "remove_branches",
    "shrink_kernels",
]

if not TYPE_CHECKING:  # type checkers would take any name for a public one

    def __getattr__(name: str) -> Any:
        """Imports what reads files where it is first used: files hold graphs, so `storage` stands on this package."""
        if name not in ("load", "load_exported"):
            raise AttributeError(f"module 'penjing.graph' has no attribute '{name}'")
        from penjing import storage

        value = globals()[name] = getattr(storage, name)
        return value
