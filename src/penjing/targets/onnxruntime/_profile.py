"""What ONNX Runtime really executes, node by node, from its own profile and the model that it optimised."""

import base64
import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from penjing.targets._records import Artifact, ExecutedNode
from penjing.targets.onnx._dynamic import INT8_LEVEL
from penjing.targets.onnx._names import origin
from penjing.targets.onnxruntime import _on_device
from penjing.targets.onnxruntime._arithmetic import (
    CONVOLUTIONS,
    INTEGER,
    PRODUCTS,
    RECURRENT,
    RECURRENT_MATRICES,
    TRANSPOSED,
)
from penjing.targets.onnxruntime._session import cant_load

_SUFFIXES = re.compile(r"(_token_\d+|_nchwc|_transB|_transA)+$")


def profile(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], runs: int) -> list[ExecutedNode]:
    """Returns every executed node in order; see `ExecutedNode`."""
    try:
        found = _on_device.profile(str(artifact.path), threads, inputs, runs)
    except Exception as error:  # its exception types have no common base but Exception
        raise cant_load(artifact.path, error) from error
    return rows(artifact, inputs, found)


def rows(artifact: Artifact, inputs: dict[str, np.ndarray], found: Mapping[str, Any]) -> list[ExecutedNode]:
    """Returns the executed nodes, given what `_on_device.profile` returned."""
    optimized = Nodes.of(onnx.load_model_from_string(base64.b64decode(found["optimized"])))
    written = Nodes.of(onnx.load(artifact.path))
    return [row(name, node, optimized, written) for name, node in found["nodes"].items()]


@dataclass(frozen=True)
class Nodes:
    """A model's nodes by name and by the value that they make, and the shapes of its constants."""

    by_name: Mapping[str, onnx.NodeProto]
    by_value: Mapping[str, onnx.NodeProto]
    constants: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> "Nodes":
        return cls(
            {node.name: node for node in model.graph.node},
            {value: node for node in model.graph.node for value in node.output},
            {constant.name: tuple(constant.dims) for constant in model.graph.initializer},
        )


def row(name: str, found: Mapping[str, Any], optimized: Nodes, written: Nodes) -> ExecutedNode:
    op = found["op_name"]
    source = _origin(name, op, written)
    return ExecutedNode(
        name=name,
        op=op,
        module=source[0] if source else None,
        node=source[1] if source else None,
        latency_us=float(statistics.median(found["us"])),
        integer=op in INTEGER or (op == "MatMulNBits" and _rounds(optimized.by_name.get(name))),
        macs=_macs(op, found, optimized.by_name.get(name), optimized.constants),
    )


def _rounds(node: onnx.NodeProto | None) -> bool:
    """Tells whether a MatMulNBits rounds its activations to 8 bits and multiplies integers."""
    return node is not None and any(a.name == "accuracy_level" and a.i == INT8_LEVEL for a in node.attribute)


def _origin(name: str, op: str, written: Nodes) -> tuple[str, str] | None:
    """Returns the user's module and the graph's node of an executed node."""
    node = source_of(name, op, written)
    return origin(node.name) if node is not None else None


def source_of(name: str, op: str, written: Nodes) -> onnx.NodeProto | None:
    """Traces an executed node to the file's node of the same name, or the one whose value it is named after."""
    base = _SUFFIXES.sub("", name.removeprefix("fused "))
    node = written.by_name.get(base) or written.by_value.get(base)
    if op in CONVOLUTIONS:  # ONNX Runtime names a fused convolution after the last op that it swallowed
        while node is not None and node.op_type != "Conv":
            makers = [written.by_value[value] for value in node.input if value in written.by_value]
            node = next((maker for maker in makers if maker.op_type not in ("DequantizeLinear", "Constant")), None)
    return node


def _macs(
    op: str, call: Mapping[str, Any], node: onnx.NodeProto | None, constants: Mapping[str, tuple[int, ...]]
) -> int:
    if op not in CONVOLUTIONS | TRANSPOSED | PRODUCTS and op not in RECURRENT:  # loops, for example, have no shapes
        return 0
    shapes = [next(iter(shape.values())) for shape in call["input_type_shape"]]
    made = math.prod(next(iter(call["output_type_shape"][0].values())))

    def weight(position: int) -> tuple[int, ...]:
        # A weight that was packed for its kernel is missing from the profile but not from the optimised model.
        known = constants.get(node.input[position]) if node is not None and len(node.input) > position else None
        return known if known is not None else tuple(shapes[position])

    if op in RECURRENT:  # each step of each sample multiplies by both matrices
        return int(math.prod(shapes[0][:2]) * sum(math.prod(weight(position)) for position in RECURRENT_MATRICES))
    if op in CONVOLUTIONS:
        return made * math.prod(weight(CONVOLUTIONS[op])[1:])
    if op in TRANSPOSED:
        return int(math.prod(shapes[0]) * math.prod(weight(TRANSPOSED[op])[1:]))
    transposed = node is not None and any(a.name == "transA" and a.i for a in node.attribute)
    return int(made * (shapes[0][-2] if transposed else shapes[0][-1]))
