"""Recurrent layers: ONNX stacks the gates in another order than PyTorch."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.importing.onnx.node import Form, Node, no_form
from penjing.importing.onnx.ops.table import form

GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}  # where each of PyTorch's gates stands in ONNX
ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
LAYERS: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


class Recurrent(nn.Module):
    """A recurrent layer with ONNX's axes: (steps, directions, batch, features) comes out."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, hidden: Tensor | None = None, cell: Tensor | None = None) -> tuple[Tensor, ...]:
        """Returns all outputs, the last hidden state and, of an LSTM, the last cell."""
        hidden, cell = (None if one is None else one.expand(-1, x.shape[1], -1) for one in (hidden, cell))
        state: Any = hidden
        if isinstance(self.layer, nn.LSTM) and hidden is not None:
            state = (hidden, torch.zeros_like(hidden) if cell is None else cell)
        outputs, last = self.layer(x, state)
        directions = 2 if self.layer.bidirectional else 1
        outputs = outputs.unflatten(2, (directions, self.layer.hidden_size)).transpose(1, 2)
        return (outputs, *(last if isinstance(last, tuple) else (last,)))


@form("LSTM", "GRU", "RNN")
def recurrent(node: Node) -> Form:
    """An LSTM, a GRU or a plain recurrent layer, in one direction or in both."""
    direction = node.attribute("direction", "forward")
    wanted = ACTIVATIONS[node.op] * (2 if direction == "bidirectional" else 1)
    odd = {
        "it runs backwards alone": direction == "reverse",
        "its sequences have lengths of their own (sequence_lens)": node.has(4) and not _whole(node),
        "it has other activations": list(node.attribute("activations", wanted)) != wanted,
        "it clips its values": "clip" in node.attributes,
        "its batch stands first (layout=1)": node.attribute("layout", 0) != 0,
        "its forget gate is tied (input_forget)": node.attribute("input_forget", 0) != 0,
        "it has peepholes": node.op == "LSTM" and node.has(7),
        "the reset gate acts before the product (linear_before_reset=0)": node.op == "GRU"
        and not node.attribute("linear_before_reset", 0),
    }
    for why, there in odd.items():
        if there:
            raise no_form(node, why)
    kernel, inner = node.wanted_constant(1), node.wanted_constant(2)
    hidden, both = inner.shape[2], direction == "bidirectional"
    layer = LAYERS[node.op](kernel.shape[2], hidden, bidirectional=both, bias=node.has(3))
    order = np.concatenate([np.arange(hidden) + gate * hidden for gate in GATES[node.op]])
    for index, suffix in enumerate(("", "_reverse")[: 1 + both]):
        parts = {"weight_ih_l0": kernel[index], "weight_hh_l0": inner[index]}
        if node.has(3):
            biases = node.wanted_constant(3)[index].reshape(2, -1)
            parts |= {"bias_ih_l0": biases[0], "bias_hh_l0": biases[1]}
        for name, value in parts.items():
            key = (node.names[1], node.names[2], name + suffix)
            setattr(layer, name + suffix, node.share(key, partial(torch.tensor, value[order])))
    states = [node.tensor(position) if node.has(position) else None for position in (5, 6)]
    return Form(Recurrent(layer), (node.tensor(0), *states), owner=1)


def _whole(node: Node) -> bool:
    """Tells whether all sequences are as long as the tensor."""
    lengths = node.constant(4)
    return lengths is not None and bool((lengths == node.inputs[0].shape[0]).all())
