"""Recurrent layers as one op: a hidden unit has indices in every gate, layer and direction, and in both states."""

from typing import Any

import numpy as np
import torch

from penjing.graph.channels.rules.table import Axes, Axis, Labelling, Value, rule

aten = torch.ops.aten


@rule(aten.gru.input)
def gru(labelling: Labelling, x: Value, state: Value, weights: list[Value], *options: Any) -> list[Axes]:
    """Three gates."""
    hidden, _ = _tie(labelling, x, [state], weights, 3, *options)
    return _outputs(x, [state], [hidden], hidden, *options)


@rule(aten.rnn_tanh.input, aten.rnn_relu.input)
def rnn(labelling: Labelling, x: Value, state: Value, weights: list[Value], *options: Any) -> list[Axes]:
    """One gate."""
    hidden, _ = _tie(labelling, x, [state], weights, 1, *options)
    return _outputs(x, [state], [hidden], hidden, *options)


@rule(aten.lstm.input)
def lstm(labelling: Labelling, x: Value, states: list[Value], weights: list[Value], *options: Any) -> list[Axes]:
    """Four gates; with a projection, the outputs are projected units, and the hidden units stay inside the op."""
    hidden, projected = _tie(labelling, x, states, weights, 4, *options)
    return _outputs(x, states, [projected, hidden], projected, *options)


def _tie(
    labelling: Labelling,
    x: Value,
    states: list[Value],
    weights: list[Value],
    gates: int,
    biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    *_: Any,
) -> tuple[Axis, Axis]:
    """Ties the weights of all layers and directions; returns the labels of the hidden and of the projected units.

    Per layer and direction: `(gates · hidden, inputs)`, `(gates · hidden, projected)`, two biases `(gates · hidden,)` if
    there are any, and `(projected, hidden)` if there is a projection.
    """
    directions = 2 if bidirectional else 1
    count = len(weights) // (layers * directions)
    projection = count in (3, 5)
    cells = [weights[i : i + count] for i in range(0, len(weights), count)]
    recurrent = cells[0][-1] if projection else cells[0][1]
    hidden = recurrent.axes[1]
    projected = recurrent.axes[0] if projection else hidden
    if projection:
        labelling.unequal(hidden, projected)  # ATen infers a projection from unequal sizes of the states
    for state, labels in zip(states, (projected, hidden), strict=False):
        labelling.tie(state.axes[-1], labels)
    incoming = x.axes[-1]
    for layer in range(layers):
        for cell in cells[layer * directions : (layer + 1) * directions]:
            _tie_cell(labelling, cell, incoming, hidden, projected, gates, biases, projection)
        incoming = _tiled(projected, directions)
    return hidden, projected


def _tie_cell(
    labelling: Labelling,
    cell: list[Value],
    incoming: Axis,
    hidden: Axis,
    projected: Axis,
    gates: int,
    biases: bool,
    projection: bool,
) -> None:
    for weight, columns in zip(cell[:2], (incoming, projected), strict=True):
        labelling.tie(_tiled(hidden, gates), weight.axes[0])
        labelling.tie(columns, weight.axes[1])
        labelling.role(weight, 0, "out")
        labelling.role(weight, 1, "in")
    for bias in cell[2:4] if biases else ():
        labelling.tie(_tiled(hidden, gates), bias.axes[0])
        labelling.role(bias, 0, "shift")
    if projection:
        labelling.tie(projected, cell[-1].axes[0])
        labelling.tie(hidden, cell[-1].axes[1])
        labelling.role(cell[-1], 0, "out")
        labelling.role(cell[-1], 1, "in")


def _outputs(
    x: Value,
    states: list[Value],
    final: list[Axis],
    outgoing: Axis,
    biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    *_: Any,
) -> list[Axes]:
    """Returns the labels of the sequence, with the directions concatenated, and of the final states."""
    sequence = (*x.axes[:-1], _tiled(outgoing, 2 if bidirectional else 1))
    return [sequence, *((*state.axes[:-1], labels) for state, labels in zip(states, final, strict=True))]


def _tiled(labels: Axis, times: int) -> Axis:
    return np.tile(labels, times) if labels is not None else None
