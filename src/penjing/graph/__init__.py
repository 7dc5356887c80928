"""The ground floor: a captured model as a graph, its costs, its channels, and surgery on them."""

from penjing.graph.branches import Branch, branches, remove_branches
from penjing.graph.capture import capture
from penjing.graph.channels import Channels, Entry, Group, Pinned, channels
from penjing.graph.cost import Cost, Row
from penjing.graph.fold import fold_batch_norms
from penjing.graph.graph import Graph
from penjing.graph.heads import heads
from penjing.graph.inputs import Input
from penjing.graph.kernels import Kernel, kernels, shrink_kernels
from penjing.graph.ranges import Ranges
from penjing.graph.storage import load, load_exported
from penjing.graph.surgery import remove

__all__ = [
    "Branch",
    "Channels",
    "Cost",
    "Entry",
    "Graph",
    "Group",
    "Input",
    "Kernel",
    "Pinned",
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
