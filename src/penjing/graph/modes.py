"""Training and evaluation modes of a graph: the arguments and targets of single nodes that differ between the two.

An exported graph holds no modules whose `training` flag could be read, so the flag stands in the call of each op.
"""

from typing import Any

import torch
from torch import fx

from penjing.graph import straight_through
from penjing.graph.ops import node_arguments

aten = torch.ops.aten

# Position of the flag that says "training" in each op that has one.
TRAINING_ARGUMENT: dict[object, int] = {
    aten.batch_norm.default: 5,
    aten.instance_norm.default: 5,
    aten.dropout.default: 2,
    aten.feature_dropout.default: 2,
    aten.alpha_dropout.default: 2,
    aten.feature_alpha_dropout.default: 2,
    aten.rrelu.default: 3,
    aten.lstm.input: 6,
    aten.gru.input: 6,
    aten.rnn_tanh.input: 6,
    aten.rnn_relu.input: 6,
    aten.lstm.data: 7,
    aten.gru.data: 7,
    aten.rnn_tanh.data: 7,
    aten.rnn_relu.data: 7,
}
DROPOUT_PROBABILITY = {aten.scaled_dot_product_attention.default: 4}

SWITCHES = "switches_with_mode"
TRAINING_DROPOUT = "training_dropout"


def mark(graph: fx.Graph) -> None:
    """Marks the nodes whose flag follows the mode: those captured in evaluation with the flag off.

    A batch norm without running statistics normalises by the batch in both modes and is left alone.
    """
    for node in graph.nodes:
        position = TRAINING_ARGUMENT.get(node.target)
        if position is None:
            continue
        arguments = node_arguments(node)[: max(position + 1, len(node.args))]  # a flag left at its default is spelt out
        if arguments[position] is False:
            names = {argument.name for argument in node.target._schema.arguments[: len(arguments)]}
            node.args = tuple(arguments)
            node.kwargs = {name: value for name, value in node.kwargs.items() if name not in names}
            node.meta[SWITCHES] = True


def set_mode(graph: fx.Graph, training: bool) -> None:
    """Flips every marked node to the given mode, and quantise/dequantise ops to their straight-through twins or back."""
    for node in graph.nodes:
        if node.meta.get(SWITCHES):
            node.update_arg(TRAINING_ARGUMENT[node.target], training)
        if TRAINING_DROPOUT in node.meta:
            args, kwargs = list(node.args), dict(node.kwargs)
            set_attention_dropout(node, args, kwargs, node.meta[TRAINING_DROPOUT] if training else 0.0)
            node.args, node.kwargs = tuple(args), kwargs
        if node.op == "call_function":
            node.target = straight_through.swap(node.target, training)


def set_attention_dropout(node: fx.Node, args: list[Any], kwargs: dict[str, Any], probability: float) -> None:
    """Writes an attention's probability of dropout into copies of its arguments."""
    if len(args) > DROPOUT_PROBABILITY[node.target]:
        args[DROPOUT_PROBABILITY[node.target]] = probability
    else:
        kwargs["dropout_p"] = probability
