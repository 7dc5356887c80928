"""Writes recurrent cells, which compute one step, out as their linear layers and gates.

Channels, costs, quantisers and runtimes then see two linear layers and the ops behind them, as in a cell that a user
wrote. The
formulas are those of `torch.nn.LSTMCell`, `GRUCell` and `RNNCell`, entry for entry; the parameters stay the cell's own.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from penjing.graph.edit.rewriter import Writer, replace
from penjing.graph.ops import node_arguments

aten = torch.ops.aten


_Parameters = tuple[fx.Node, fx.Node, fx.Node | None, fx.Node | None]


def _gates(write: Writer, count: int, x: fx.Node, weight: fx.Node, bias: fx.Node | None) -> list[fx.Node]:
    """Returns the output of a linear layer with weight `(count · hidden, inputs)`, split into `count` gates."""
    return _cut(write, count, write(aten.linear.default, x, weight, bias))


def _summed(write: Writer, count: int, x: fx.Node, state: fx.Node, parameters: _Parameters) -> list[fx.Node]:
    """Returns the gates of W_ih·x + b_ih + W_hh·h + b_hh, for the input x and the state h."""
    weight_ih, weight_hh, bias_ih, bias_hh = parameters
    of_input = write(aten.linear.default, x, weight_ih, bias_ih)
    of_state = write(aten.linear.default, state, weight_hh, bias_hh)
    together = write(aten.add.Tensor, of_input, of_state)
    return [together] if count == 1 else _cut(write, count, together)


def _cut(write: Writer, count: int, together: fx.Node) -> list[fx.Node]:
    pieces = write(aten.chunk.default, together, count, 1)
    return [write(operator.getitem, pieces, i) for i in range(count)]


def _lstm(write: Writer, x: fx.Node, states: list[fx.Node], *parameters: Any) -> list[fx.Node]:
    """c' = σ(f) · c + σ(i) · tanh(g) and h' = σ(o) · tanh(c'); the gates stand in the order i, f, g, o."""
    state, memory = states
    i, f, g, o = _summed(write, 4, x, state, parameters)
    kept = write(aten.mul.Tensor, write(aten.sigmoid.default, f), memory)
    added = write(aten.mul.Tensor, write(aten.sigmoid.default, i), write(aten.tanh.default, g))
    memory = write(aten.add.Tensor, kept, added)
    return [write(aten.mul.Tensor, write(aten.sigmoid.default, o), write(aten.tanh.default, memory)), memory]


def _gru(write: Writer, x: fx.Node, state: fx.Node, weight_ih: Any, weight_hh: Any, *biases: Any) -> list[fx.Node]:
    """n = tanh(xₙ + σ(r) · hₙ) and h' = n + σ(z) · (h − n); the gates stand in the order r, z, n."""
    of_input = _gates(write, 3, x, weight_ih, biases[0])
    of_state = _gates(write, 3, state, weight_hh, biases[1])
    r, z = (write(aten.sigmoid.default, write(aten.add.Tensor, of_input[gate], of_state[gate])) for gate in (0, 1))
    new = write(aten.tanh.default, write(aten.add.Tensor, of_input[2], write(aten.mul.Tensor, r, of_state[2])))
    left = write(aten.mul.Tensor, z, write(aten.sub.Tensor, state, new))
    return [write(aten.add.Tensor, left, new)]


def _rnn(activation: Any) -> Callable[..., list[fx.Node]]:
    def formula(write: Writer, x: fx.Node, state: fx.Node, *parameters: Any) -> list[fx.Node]:
        (together,) = _summed(write, 1, x, state, parameters)
        return [write(activation, together)]

    return formula


CELLS: dict[Any, Callable[..., list[fx.Node]]] = {
    aten.lstm_cell.default: _lstm,
    aten.gru_cell.default: _gru,
    aten.rnn_tanh_cell.default: _rnn(aten.tanh.default),
    aten.rnn_relu_cell.default: _rnn(aten.relu.default),
}


def write_out_cells(graph: fx.Graph) -> None:
    """Replaces each recurrent cell in `graph`, in place, by the ops of its formula."""
    for node in list(graph.nodes):
        formula = CELLS.get(node.target)
        if formula is None:
            continue
        outputs = formula(Writer.before(node), *node_arguments(node))
        replace(node, outputs if len(outputs) > 1 else outputs[0])
