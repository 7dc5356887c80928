"""Recurrent cells, which compute one step, written out as the layers and gates that they are made of.

So channels, costs, quantisers and runtimes see two linear layers and what follows them, as in a cell that a user wrote. The
formulas are those of `torch.nn.LSTMCell`, `GRUCell` and `RNNCell`, entry for entry; the parameters stay the cell's own.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from penjing.graph.normalize import node_arguments

aten = torch.ops.aten


class _Cell:
    """Inserts ops in the place of a cell, on its module's behalf."""

    def __init__(self, graph: fx.Graph, node: fx.Node) -> None:
        self._graph, self._node = graph, node

    def __call__(self, op: Any, *arguments: Any) -> fx.Node:
        node = self._graph.call_function(op, arguments)
        node.meta = {key: self._node.meta[key] for key in ("module", "source") if key in self._node.meta}
        return node

    def gates(self, count: int, x: fx.Node, weight: fx.Node, bias: fx.Node | None) -> list[fx.Node]:
        """Returns what a linear layer of weight `(count · hidden, inputs)` gives, cut into its gates."""
        together = self(aten.linear.default, x, weight, bias)
        pieces = self(aten.chunk.default, together, count, 1)
        return [self(operator.getitem, pieces, i) for i in range(count)]

    def summed(self, count: int, x: fx.Node, state: fx.Node, parameters: "_Parameters") -> list[fx.Node]:
        """Returns the gates of what the input and the state give together."""
        weight_ih, weight_hh, bias_ih, bias_hh = parameters
        of_input = self(aten.linear.default, x, weight_ih, bias_ih)
        of_state = self(aten.linear.default, state, weight_hh, bias_hh)
        together = self(aten.add.Tensor, of_input, of_state)
        if count == 1:
            return [together]
        pieces = self(aten.chunk.default, together, count, 1)
        return [self(operator.getitem, pieces, i) for i in range(count)]


_Parameters = tuple[fx.Node, fx.Node, fx.Node | None, fx.Node | None]


def _lstm(cell: _Cell, x: fx.Node, states: list[fx.Node], *parameters: Any) -> list[fx.Node]:
    """c' = σ(f) · c + σ(i) · tanh(g) and h' = σ(o) · tanh(c'); the gates stand in the order i, f, g, o."""
    state, memory = states
    i, f, g, o = cell.summed(4, x, state, parameters)
    kept = cell(aten.mul.Tensor, cell(aten.sigmoid.default, f), memory)
    added = cell(aten.mul.Tensor, cell(aten.sigmoid.default, i), cell(aten.tanh.default, g))
    memory = cell(aten.add.Tensor, kept, added)
    return [cell(aten.mul.Tensor, cell(aten.sigmoid.default, o), cell(aten.tanh.default, memory)), memory]


def _gru(cell: _Cell, x: fx.Node, state: fx.Node, weight_ih: Any, weight_hh: Any, *biases: Any) -> list[fx.Node]:
    """n = tanh(xₙ + σ(r) · hₙ) and h' = n + σ(z) · (h − n); the gates stand in the order r, z, n."""
    of_input = cell.gates(3, x, weight_ih, biases[0])
    of_state = cell.gates(3, state, weight_hh, biases[1])
    r, z = (cell(aten.sigmoid.default, cell(aten.add.Tensor, of_input[gate], of_state[gate])) for gate in (0, 1))
    new = cell(aten.tanh.default, cell(aten.add.Tensor, of_input[2], cell(aten.mul.Tensor, r, of_state[2])))
    left = cell(aten.mul.Tensor, z, cell(aten.sub.Tensor, state, new))
    return [cell(aten.add.Tensor, left, new)]


def _rnn(activation: Any) -> Callable[..., list[fx.Node]]:
    def formula(cell: _Cell, x: fx.Node, state: fx.Node, *parameters: Any) -> list[fx.Node]:
        (together,) = cell.summed(1, x, state, parameters)
        return [cell(activation, together)]

    return formula


CELLS: dict[Any, Callable[..., list[fx.Node]]] = {
    aten.lstm_cell.default: _lstm,
    aten.gru_cell.default: _gru,
    aten.rnn_tanh_cell.default: _rnn(aten.tanh.default),
    aten.rnn_relu_cell.default: _rnn(aten.relu.default),
}


def write_out_cells(graph: fx.Graph) -> None:
    """Replaces each recurrent cell in `graph` by the ops that it is made of, in place."""
    for node in list(graph.nodes):
        formula = CELLS.get(node.target)
        if formula is None:
            continue
        with graph.inserting_before(node):
            outputs = formula(_Cell(graph, node), *node_arguments(node))
        if len(outputs) == 1:
            node.replace_all_uses_with(outputs[0])
        for user in list(node.users):  # what takes the new states apart
            user.replace_all_uses_with(outputs[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(node)
