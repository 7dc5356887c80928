"""Recurrent layers: Keras orders the gates of a GRU otherwise than PyTorch."""

from typing import Any

import torch
from torch import Tensor, nn

from penjing.importing.keras.table import Call, form, no_form, parameter, refuse, values

GATES = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2)}  # where each of PyTorch's gates stands in Keras
LAYERS: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU}


class Outputs(nn.Module):
    """A recurrent layer that gives its outputs at all steps, or at the last one of each direction."""

    def __init__(self, layer: nn.RNNBase, every: bool) -> None:
        super().__init__()
        self.layer, self._every = layer, every

    def forward(self, x: Tensor) -> Tensor:
        """Returns (batch, steps, units), or (batch, units)."""
        made: Tensor = self.layer(x)[0]
        if self._every:
            return made
        if not self.layer.bidirectional:
            return made[:, -1]
        units = self.layer.hidden_size
        return torch.cat([made[:, -1, :units], made[:, 0, units:]], -1)


@form("LSTM", "GRU")
def recurrent(call: Call) -> nn.Module:
    """An LSTM or a GRU."""
    return _made(call, type(call.layer).__name__, [call.layer], call.layer.return_sequences)


@form("Bidirectional")
def bidirectional(call: Call) -> nn.Module:
    """A recurrent layer in both directions."""
    refuse(call, merge_mode="concat")
    name = type(call.layer.forward_layer).__name__
    if name not in LAYERS:
        raise no_form(call, f"it holds a {name}, and {', '.join(LAYERS)} have forms")
    return _made(call, name, [call.layer.forward_layer, call.layer.backward_layer], call.layer.return_sequences)


def _made(call: Call, name: str, directions: list[Any], every: bool) -> nn.Module:
    for one in directions:
        plain = {"activation": "tanh", "recurrent_activation": "sigmoid"}
        odd = [key for key, value in plain.items() if getattr(one, key).__name__ != value]
        if odd or one.return_state or one.stateful or (name == "GRU" and not one.reset_after):
            raise no_form(call, "only tanh, sigmoid, reset_after=True and no state in or out have a form")
        if len(directions) == 1 and one.go_backwards:
            raise no_form(call, "it runs backwards alone")
    first = values(directions[0].cell.kernel)
    units, bias = directions[0].units, directions[0].use_bias
    layer = LAYERS[name](first.shape[0], units, bias=bias, batch_first=True, bidirectional=len(directions) > 1)
    order = torch.cat([torch.arange(units) + gate * units for gate in GATES[name]])
    for one, suffix in zip(directions, ("", "_reverse"), strict=False):
        kernel, inner = values(one.cell.kernel), values(one.cell.recurrent_kernel)
        setattr(layer, f"weight_ih_l0{suffix}", parameter(kernel.t()[order]))
        setattr(layer, f"weight_hh_l0{suffix}", parameter(inner.t()[order]))
        if bias:
            given = values(one.cell.bias)
            both = given if given.ndim == 2 else torch.stack([given, torch.zeros_like(given)])
            setattr(layer, f"bias_ih_l0{suffix}", parameter(both[0][order]))
            setattr(layer, f"bias_hh_l0{suffix}", parameter(both[1][order]))
    return Outputs(layer, every)
