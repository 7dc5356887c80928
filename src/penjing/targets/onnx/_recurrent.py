"""Translates recurrent layers into ONNX's own recurrent ops.

The exporter knows two of the four kinds, and would write the others step by step.
"""

from collections.abc import Callable, Sequence
from typing import Any

from onnxscript.onnx_opset import opset18

from penjing.targets._recurrent import OPS, TWINS

GATES = {
    "LSTM": (0, 3, 1, 2),
    "GRU": (1, 0, 2),
    "RNN": (0,),
}  # ONNX's gates in order, each as its position in PyTorch's order


def _lstm(x: Any, states: Sequence[Any], parameters: Sequence[Any], *options: Any) -> Any:
    sequence, last = _layers("LSTM", {}, x, states, parameters, *options)
    return sequence, last[0], last[1]


def _gru(x: Any, state: Any, parameters: Sequence[Any], *options: Any) -> Any:
    # PyTorch multiplies by the reset gate after it has multiplied the hidden state and added the bias.
    sequence, last = _layers("GRU", {"linear_before_reset": 1}, x, [state], parameters, *options)
    return sequence, last[0]


def _rnn(activation: str) -> Callable[..., Any]:
    def translate(x: Any, state: Any, parameters: Sequence[Any], *options: Any) -> Any:
        directions = 2 if options[4] else 1
        attributes = {"activations": [activation] * directions}
        sequence, last = _layers("RNN", attributes, x, [state], parameters, *options)
        return sequence, last[0]

    return translate


def _layers(
    op: str,
    attributes: dict[str, Any],
    x: Any,
    states: Sequence[Any],
    parameters: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, list[Any]]:
    """Writes each layer as one ONNX op.

    Returns:
        The last layer's hidden states `(time, batch, directions · hidden)`, with the batch first if `batch_first`; and the
        final states of all layers.
    """
    directions, each = 2 if bidirectional else 1, 4 if has_biases else 2
    hidden = parameters[1].shape[1]
    attributes = {**attributes, "hidden_size": hidden, "direction": "bidirectional" if bidirectional else "forward"}
    if batch_first:
        x = opset18.Transpose(x, perm=[1, 0, 2])
    last: list[list[Any]] = []
    for layer in range(num_layers):
        first = layer * directions
        own = [parameters[(first + i) * each : (first + i + 1) * each] for i in range(directions)]
        inputs = [x, *(_joined([_gates(op, one[place], hidden) for one in own]) for place in (0, 1))]
        biases = [
            opset18.Concat(*(_gates(op, one[place], hidden) for place in (2, 3)), axis=0)
            for one in own[: directions * has_biases]
        ]
        before = [
            opset18.Slice(state, _ints(first), _ints(first + directions), _ints(0)) if num_layers > 1 else state
            for state in states
        ]
        made = getattr(opset18, op)(*inputs, _joined(biases) if biases else None, None, *before, **attributes)
        x = _side_by_side(made[0], directions)
        last.append(made[1:])
    if batch_first:
        x = opset18.Transpose(x, perm=[1, 0, 2])
    return x, [opset18.Concat(*kind, axis=0) if num_layers > 1 else kind[0] for kind in zip(*last, strict=True)]


def _gates(op: str, rows: Any, hidden: int) -> Any:
    """Puts the rows of all gates in ONNX's order."""
    order = GATES[op]
    if len(order) == 1:
        return rows
    parts = [opset18.Slice(rows, _ints(gate * hidden), _ints((gate + 1) * hidden), _ints(0)) for gate in order]
    return opset18.Concat(*parts, axis=0)


def _joined(per_direction: Sequence[Any]) -> Any:
    """Stacks the parts of all directions along a new first axis."""
    wide = [opset18.Unsqueeze(one, _ints(0)) for one in per_direction]
    return opset18.Concat(*wide, axis=0) if len(wide) > 1 else wide[0]


def _side_by_side(sequence: Any, directions: int) -> Any:
    """Reshapes `(time, directions, batch, hidden)` to `(time, batch, directions · hidden)`."""
    if directions == 1:
        return opset18.Squeeze(sequence, _ints(1))
    return opset18.Reshape(opset18.Transpose(sequence, perm=[0, 2, 1, 3]), _ints(0, 0, -1))


def _ints(*values: int) -> Any:
    return opset18.Constant(value_ints=list(values))


_BY_NAME = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn("Tanh"), "rnn_relu": _rnn("Relu")}
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {TWINS[op]: _BY_NAME[name] for name, op in OPS.items()}
