"""The ground floor: a captured model as a graph, its costs, its channels, and surgery on them."""

from penjing.graph.capture import capture
from penjing.graph.cost import Cost, Row
from penjing.graph.fold import fold_batch_norms
from penjing.graph.graph import Graph
from penjing.graph.inputs import Input
from penjing.graph.storage import load

__all__ = ["Cost", "Graph", "Input", "Row", "capture", "fold_batch_norms", "load"]
