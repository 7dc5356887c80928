"""Reads a profile where the model that the runtime optimised isn't at hand: weights that it packed are looked up in the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from penjing.targets._records import ExecutedNode
from penjing.targets.onnxruntime._arithmetic import CONVOLUTIONS, RECURRENT, RECURRENT_MATRICES, TRANSPOSED
from penjing.targets.onnxruntime._on_device import nodes_of
from penjing.targets.onnxruntime._profile import Nodes, row, source_of


def rows_of(events: list[dict[str, Any]], file: Path) -> list[ExecutedNode]:
    """Returns every node that was executed, in order.

    Args:
        events: the profile's events.
        file: the file that was run.
    """
    written = Nodes.of(onnx.load(file))
    calls = nodes_of(events)
    known = {name: _with_weights(name, found["op_name"], written) for name, found in calls.items()}
    executed = Nodes({name: node for name, node in known.items() if node is not None}, {}, written.constants)
    return [row(name, found, executed, written) for name, found in calls.items()]


def _with_weights(name: str, op: str, written: Nodes) -> onnx.NodeProto | None:
    """Returns a node like the executed one, whose weights are named as in the file."""
    node = source_of(name, op, written)
    if node is None:
        return None
    weights = dict(_weights(node, op, written))
    made = onnx.NodeProto()
    made.input.extend(weights.get(position, "") for position in range(max(weights, default=-1) + 1))
    made.attribute.extend(node.attribute)
    return made


def _weights(node: onnx.NodeProto, op: str, written: Nodes) -> Iterator[tuple[int, str]]:
    """Yields the constants of a node of the file that multiplies, with their positions among the inputs of the executed op."""
    if op in CONVOLUTIONS | TRANSPOSED and len(node.input) > 1:
        yield (CONVOLUTIONS | TRANSPOSED)[op], _constant(node.input[1], written)
    elif op in RECURRENT:
        yield from ((position, _constant(node.input[position], written)) for position in RECURRENT_MATRICES)


def _constant(value: str, written: Nodes) -> str:
    """Returns the constant that a value is made of by dequantising."""
    while value not in written.constants and value in written.by_value:
        maker = written.by_value[value]
        if maker.op_type != "DequantizeLinear":
            break
        value = maker.input[0]
    return value
