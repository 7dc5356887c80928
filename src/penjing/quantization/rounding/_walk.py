"""Executes a graph piece by piece, on all calibration batches, and keeps the values between pieces.

A whole pass over the data for each piece would cost time in proportion to the square of the network's depth. Here each
piece starts where the one before ended. For that, all values that later nodes read are kept, as long as they are small
enough.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph import Graph
from penjing.graph.taps import Execution, constant_values, run_nodes
from penjing.quantization.rounding._parts import channels_last
from penjing.quantization.rounding._simulated import with_gradients

HELD = 2**28  # bytes of kept values, all batches together: 256 MiB


class Walk:
    """A position in one graph, with the values there."""

    def __init__(self, graph: Graph, batches: Iterable[Sequence[Tensor]]) -> None:
        """Starts in front of the first node.

        Args:
            graph: a graph in evaluation mode.
            batches: the graph's flat inputs.
        """
        program = graph.program
        self._graph = graph
        self._order = {node: place for place, node in enumerate(program.graph.nodes)}
        self._nodes = {node.name: node for node in self._order}
        inputs = [node for node in self._order if node.op == "placeholder"]
        self._held: list[dict[fx.Node, Any]] = [
            dict(zip(inputs, map(channels_last, batch), strict=True)) for batch in batches
        ]
        with torch.no_grad():
            self.known = constant_values(program)

    def values(self, names: Sequence[str]) -> Iterator[tuple[Tensor, ...]]:
        """Yields the values of these nodes for each batch; the position stays."""
        wanted = [self._nodes[name] for name in names]
        for held in self._held:
            found = self._run(held, wanted)
            yield tuple(found[node] for node in wanted)

    def advance(self, name: str) -> None:
        """Moves the position behind a node if the values that later nodes read are small enough to keep."""
        place = self._order[self._nodes[name]]
        live = [
            node
            for node, at in self._order.items()
            if at <= place and node not in self.known and any(self._order[user] > place for user in node.users)
        ]
        fresh: list[dict[fx.Node, Any]] = []
        for held in self._held:
            found = self._run(held, live)
            fresh.append({node: found[node] for node in live})
            if _bytes(fresh[0]) * len(self._held) > HELD:
                return
        self._held = fresh

    def renew(self, path: str) -> None:
        """Computes again the constant nodes that depend on a changed tensor, such as a rounded weight."""
        stale = {node for node in self.known if node.op == "get_attr" and node.target == path}
        for node in self._order:
            if node in self.known and not stale.isdisjoint(node.all_input_nodes):
                stale.add(node)
                with torch.no_grad():
                    run_nodes(self._graph.program, [node], self.known)

    def _run(self, held: dict[fx.Node, Any], wanted: Sequence[fx.Node]) -> dict[fx.Node, Any]:
        """Executes the nodes that the wanted ones depend on, and frees each value once nothing reads it any more."""
        needed, stack = set(), [node for node in wanted if node not in held]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack += [s for s in node.all_input_nodes if s not in held and s not in self.known]
        execution, kept = Execution(self._graph.program, with_gradients, keep=True), {*wanted, *held}
        execution.env = env = {**self.known, **held}
        left = {node: sum(user in needed for user in node.users) for node in needed}
        with torch.no_grad():
            for node in sorted(needed, key=self._order.__getitem__):
                env[node] = execution.run_node(node)
                for source in node.all_input_nodes:
                    if source in left:
                        left[source] -= 1
                        if not left[source] and source not in kept:
                            del env[source]
        return env


def _bytes(held: dict[fx.Node, Any]) -> int:
    return sum(value.nbytes for value in held.values() if isinstance(value, Tensor))
