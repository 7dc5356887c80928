"""Families of ATen ops that several parts of Penjing treat alike, and how the arguments of a call are read."""

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

CONVOLUTIONS = (
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,  # padding="same" or "valid"
    aten.conv2d.padding,
    aten.conv3d.padding,
)
LAYERS = frozenset({*CONVOLUTIONS, aten.linear.default})  # weights are their second argument
LOOKUPS = frozenset({aten.embedding.default})  # the table, a row per index, is their first argument
TRANSPOSED_CONVOLUTIONS = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)

RECURRENT = frozenset({aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input})
"""They give the sequence of the last layer's hidden states, and the final states of all layers."""
RECURRENT_PARAMETERS = 2  # position of the parameters among these ops' arguments


def node_arguments(node: fx.Node) -> list[Any]:
    """Returns the arguments of an ATen call in the order of its schema, keywords and defaults filled in."""
    given = list(node.args)
    rest = node.target._schema.arguments[len(given) :]  # type: ignore[union-attr]
    return given + [node.kwargs.get(argument.name, argument.default_value) for argument in rest]
