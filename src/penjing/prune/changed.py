"""A graph in which the values of some nodes are changed on the way: gates and attention that multiply there."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from penjing.graph import Graph

Change = Callable[[Tensor, Sequence[Any]], Tensor]
"""From a node's value and its arguments' values to the value that those who read the node get."""


class Changed(fx.Interpreter):
    """Runs a graph node by node; it is called as the graph is, and shares its tensors.

    Args:
        graph: what to run.
        changes: per node, what becomes of its value. That of a parameter's node changes the parameter.
    """

    def __init__(self, graph: Graph, changes: Mapping[str, Change]) -> None:
        super().__init__(graph.program)
        self._captured, self._changes = graph, changes

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the outputs, nested as the graph's."""
        outputs = self.run(*self._captured.signature.flatten(args, kwargs))
        return pytree.tree_unflatten(list(outputs), self._captured.out_spec)

    def run_node(self, n: fx.Node) -> Any:
        """Computes a node, and changes what it gives."""
        value = super().run_node(n)
        change = self._changes.get(n.name)
        return value if change is None else change(value, self.fetch_args_kwargs_from_env(n)[0])
