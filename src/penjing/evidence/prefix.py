"""Runs changed copies of a graph from the first value on that a change can reach; what lies before is computed once for all.

Changes that are tried one after another, such as the removal of each block, leave a long part of the network as it was.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph import Graph

MOST_BYTES = 1 << 29  # bytes of values that are kept, at most


class Prefix:
    """The values of a graph at its narrow places, where one tensor carries all that flows on."""

    def __init__(self, model: Graph, batches: Sequence[Sequence[Tensor]]) -> None:
        """Notes what the graph looks like, and runs it once on every batch.

        Args:
            model: the graph, in the mode in which changed copies of it will run.
            batches: the flat inputs of each batch.
        """
        self._looks = {node.name: _look(node) for node in model.program.graph.nodes}
        self._tensors = {name: tensor.detach().clone() for name, tensor in model.tensors().items()}
        names = _narrow(model)
        self._values: list[Mapping[str, Any]] = []
        for inputs in batches:
            found = _Recorder(model.program, frozenset(names)).values(*inputs)
            if not self._values:
                size = len(batches) * sum(value.nbytes for value in found.values() if isinstance(value, Tensor))
                names = names[:: max(1, math.ceil(size / MOST_BYTES))]
            kept = {name: value for name, value in found.items() if name in names or not isinstance(value, Tensor)}
            self._values.append(kept)
        self._names = frozenset(names)

    def start(self, changed: Graph) -> str:
        """Returns the last narrow place that a change can't have reached, before the copy runs; "" if there is none.

        Args:
            changed: a copy in the same mode, in which nodes that are left have their names.
        """
        same: set[fx.Node] = set()
        narrow = self._names.intersection(_narrow(changed))
        found = ""
        for node in changed.program.graph.nodes:
            if self._looks.get(node.name) != _look(node) or any(one not in same for one in node.all_input_nodes):
                continue
            if node.op == "get_attr":
                mine, given = self._tensors.get(str(node.target)), changed.tensor(str(node.target))
                if mine is None or mine.shape != given.shape or not torch.equal(mine, given):
                    continue
            same.add(node)
            if node.name in narrow:
                found = node.name
        return found

    def run(self, changed: Graph, start: str, batch: int, inputs: Sequence[Tensor]) -> Any:
        """Returns the flat outputs of a changed copy on a batch.

        Args:
            changed: the copy.
            start: where it begins to differ, see `start`.
            batch: the number of the batch.
            inputs: the flat inputs of the batch.
        """
        env: dict[fx.Node, Any] = {}
        if start:
            known = self._values[batch]
            for node in changed.program.graph.nodes:
                if node.op != "get_attr":
                    env[node] = known.get(node.name)  # of what isn't known there, nothing is read any more
                if node.name == start:
                    break
        return fx.Interpreter(changed.program).run(*inputs, initial_env=env)


class _Recorder(fx.Interpreter):
    """Keeps the values of some nodes, and all that are no tensors, such as sizes."""

    def __init__(self, program: fx.GraphModule, names: frozenset[str]) -> None:
        super().__init__(program)
        self._names, self._found = names, dict[str, Any]()

    def values(self, *inputs: Tensor) -> dict[str, Any]:
        self.run(*inputs)
        return self._found

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._names or isinstance(value, int | float):
            self._found[n.name] = value
        return value


def _look(node: fx.Node) -> tuple[str, Any, str, str]:
    """Returns all that a node does but for the values that flow in, which its arguments name."""
    return node.op, node.target, repr(node.args), repr(node.kwargs)


def _narrow(graph: Graph) -> list[str]:
    """Returns the nodes behind which no other tensor is read than theirs, parameters aside, in order of execution."""
    nodes = [node for node in graph.program.graph.nodes if node.op != "get_attr" and _is_tensor(node)]
    after = {node: place for place, node in enumerate(graph.program.graph.nodes)}
    inputs = max((after[node] for node in after if node.op == "placeholder"), default=0)
    reaches = -1  # the last place at which one of the nodes before is read
    found = []
    for node in nodes:
        if reaches <= after[node] and after[node] > inputs and node.op == "call_function":
            found.append(node.name)
        reaches = max([reaches, *(after[user] for user in node.users)])
    return found


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor | list | tuple)
