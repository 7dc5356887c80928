"""Recurrent layers, written out step by step: a file has sequences of one length."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from penjing.targets.litert.rules.written_out import written_out

aten = torch.ops.aten

States = tuple[Tensor, ...]
Step = Callable[[Tensor, Tensor, States], States]
"""From the gates' sums of the input and of the hidden state to the next states, of which the first is the output."""


def _lstm_step(given: Tensor, hidden: Tensor, states: States) -> States:
    entry, forget, cell, output = (given + hidden).chunk(4, -1)
    kept = torch.sigmoid(forget) * states[1] + torch.sigmoid(entry) * torch.tanh(cell)
    return torch.sigmoid(output) * torch.tanh(kept), kept


def _gru_step(given: Tensor, hidden: Tensor, states: States) -> States:
    reset, update, new = given.chunk(3, -1)
    own_reset, own_update, own_new = hidden.chunk(3, -1)
    keep = torch.sigmoid(update + own_update)
    fresh = torch.tanh(new + torch.sigmoid(reset + own_reset) * own_new)
    return (fresh + keep * (states[0] - fresh),)


def _rnn_step(activation: Callable[[Tensor], Tensor]) -> Step:
    return lambda given, hidden, states: (activation(given + hidden),)


def _layers(
    step: Step,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Runs all layers; returns the last one's outputs and the final states of all.

    Args:
        step: one step of one layer.
        x: `(time, batch, features)`, or with the batch first.
        states: the first states, each `(layers · directions, batch, hidden)`.
        parameters: of all layers and directions one after the other: two matrices and, where there are any, two biases.
        has_biases: whether there are biases.
        num_layers: how many layers.
        bidirectional: whether each layer also runs backwards.
        batch_first: whether the batch comes before the time.
    """
    directions, each = 2 if bidirectional else 1, 4 if has_biases else 2
    x = x.transpose(0, 1) if batch_first else x
    last: list[States] = []
    for layer in range(num_layers):
        sides = []
        for direction in range(directions):
            at = layer * directions + direction
            entry, recurrent, *biases = parameters[at * each : (at + 1) * each]
            given = torch.nn.functional.linear(x, entry, biases[0] if biases else None)
            now: States = tuple(state[at] for state in states)
            made = []
            times = range(x.shape[0])
            for time in reversed(times) if direction else times:
                hidden = torch.nn.functional.linear(now[0], recurrent, biases[1] if biases else None)
                now = step(given[time], hidden, now)
                made.append(now[0].unsqueeze(0))
            sides.append(torch.cat(made[::-1] if direction else made, 0))
            last.append(now)
        x = torch.cat(sides, -1) if directions > 1 else sides[0]
    finals = [torch.cat([one.unsqueeze(0) for one in kind], 0) for kind in zip(*last, strict=True)]
    return x.transpose(0, 1) if batch_first else x, finals


@written_out(aten.lstm.input)
def lstm(
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Writes an LSTM."""
    out, (hidden, cell) = _layers(_lstm_step, x, states, parameters, has_biases, num_layers, bidirectional, batch_first)
    return out, hidden, cell


def _with_one_state(step: Step) -> Callable[..., tuple[Tensor, Tensor]]:
    def write(
        x: Tensor,
        state: Tensor,
        parameters: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, Tensor]:
        out, (hidden,) = _layers(step, x, [state], parameters, has_biases, num_layers, bidirectional, batch_first)
        return out, hidden

    return write


written_out(aten.gru.input)(_with_one_state(_gru_step))
written_out(aten.rnn_tanh.input)(_with_one_state(_rnn_step(torch.tanh)))
written_out(aten.rnn_relu.input)(_with_one_state(_rnn_step(torch.relu)))
