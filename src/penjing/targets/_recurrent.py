"""Keeps the sequence length of recurrent layers free in export, where `torch.export` alone would fix it.

`torch.export` traces a recurrent op step by step, so an exported LSTM would accept sequences of one length only, although
the op in the program accepts any length. During the export, twins of these ops that only compute output shapes take their
places; afterwards the original ops are put back.
"""

from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
OPS = {
    "lstm": aten.lstm.input,
    "gru": aten.gru.input,
    "rnn_tanh": aten.rnn_tanh.input,
    "rnn_relu": aten.rnn_relu.input,
}
BIDIRECTIONAL = 7  # position of the flag among the arguments


def _shapes(*args: Any) -> tuple[Tensor, ...]:
    """Returns empty outputs: one value per step, and the last states."""
    x, states = args[0], args[1] if isinstance(args[1], list | tuple) else [args[1]]
    width = states[0].shape[-1] * (2 if args[BIDIRECTIONAL] else 1)
    return (x.new_empty((*x.shape[:-1], width)), *(torch.empty_like(state) for state in states))


_library = torch.library.Library("penjing_export", "DEF")
for _name, _op in OPS.items():
    _library.define(str(_op._schema).replace(f"aten::{_name}.input", _name, 1))
    _library.impl(_name, _shapes, "CompositeExplicitAutograd")

TWINS = {op: getattr(torch.ops.penjing_export, name).default for name, op in OPS.items()}
ORIGINALS = {twin: op for op, twin in TWINS.items()}


def swap(nodes: fx.Graph, ops: dict[Any, Any]) -> None:
    """Changes the ops of nodes in place; `ops` maps each old op to its new one."""
    for node in nodes.nodes:
        node.target = ops.get(node.target, node.target)
