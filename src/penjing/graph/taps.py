"""Executing a graph node by node: to look at the values inside, to change them on the way, or to compute them otherwise.

`Graph.with_outputs` returns the values of named nodes and is the first choice. What lives here is for the other cases: values
that are looked at one after the other and then forgotten, values that are replaced, and parts of a graph that run alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from penjing.graph.graph import Graph

Step = Callable[["Execution", fx.Node], Any]
"""From an execution and the node whose turn it is to the value that the node's readers get; see `Execution.usual`."""

Change = Callable[[Tensor, Sequence[Any]], Tensor]
"""From a node's value and its arguments' values to the value that those who read the node get."""


class Execution(fx.Interpreter):
    """Runs a program node by node, and leaves to a function how each node is computed.

    Attributes:
        env: the values at hand, by node.
    """

    def __init__(self, program: fx.GraphModule, step: Step | None = None, *, keep: bool = False) -> None:
        """Prepares to run.

        Args:
            program: what to run.
            step: computes each node; None computes it as the program says.
            keep: whether all values stay in `env`; otherwise each is forgotten behind its last reader.
        """
        super().__init__(program, garbage_collect_values=not keep)
        self.extra_traceback = False  # PyTorch would write the node's code into the message of every error
        self._step = step

    def run_node(self, n: fx.Node) -> Any:
        """Computes one node from the values in `env`."""
        return self.usual(n) if self._step is None else self._step(self, n)

    def usual(self, n: fx.Node) -> Any:
        """Computes one node as the program says."""
        return super().run_node(n)

    def arguments(self, n: fx.Node) -> Sequence[Any]:
        """Returns the values of a node's arguments."""
        return self.fetch_args_kwargs_from_env(n)[0]


def all_values(program: fx.GraphModule, inputs: Sequence[Any]) -> dict[fx.Node, Any]:
    """Returns the values of all nodes; that of the output node is the flat tuple of outputs."""
    execution = Execution(program, keep=True)
    execution.run(*inputs)
    return execution.env


def constant_values(program: fx.GraphModule) -> dict[fx.Node, Any]:
    """Returns the values that don't depend on the inputs, rounded weights above all: computed once, not for each batch."""
    execution = Execution(program, keep=True)
    for node in program.graph.nodes:
        computed = node.op == "call_function" and node.all_input_nodes
        if node.op == "get_attr" or (computed and all(source in execution.env for source in node.all_input_nodes)):
            execution.env[node] = execution.run_node(node)
    return execution.env


def run_nodes(
    program: fx.GraphModule, nodes: Iterable[fx.Node], values: dict[fx.Node, Any], step: Step | None = None
) -> None:
    """Computes some nodes of a program, in order of execution, and adds what they give to `values`.

    Args:
        program: holds the nodes.
        nodes: what they read is among `values`, or comes before them.
        values: by node.
        step: as for `Execution`.
    """
    execution = Execution(program, step, keep=True)
    execution.env = values
    for node in nodes:
        values[node] = execution.run_node(node)


def with_changes(graph: "Graph", changes: Mapping[str, Change]) -> Callable[..., Any]:
    """Returns a function that is called as the graph is, and in which the values of some nodes are changed on the way.

    Args:
        graph: what runs; its tensors are shared.
        changes: per node, what becomes of its value. The change of a parameter's node changes the parameter.
    """

    def step(execution: Execution, node: fx.Node) -> Any:
        value, change = execution.usual(node), changes.get(node.name)
        return value if change is None else change(value, execution.arguments(node))

    execution = Execution(graph.program, step)

    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = execution.run(*graph.signature.flatten(args, kwargs))
        return pytree.tree_unflatten(list(outputs), graph.out_spec)

    return call
