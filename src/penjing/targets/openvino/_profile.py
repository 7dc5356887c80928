"""What OpenVINO really executes, node by node, from its own profile and the model that it compiled."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penjing.targets._records import Artifact, ExecutedNode
from penjing.targets.onnx import origin
from penjing.targets.openvino import _on_device
from penjing.targets.openvino._session import read

_WITHOUT_BIAS = "/WithoutBiases"  # what the reader of ONNX files adds to the name of a product that has a bias
_EIGHT_BITS = {"i8", "u8"}
_CONVOLUTIONS = {"Convolution": 1, "GroupConvolution": 2}  # axes of output channels: (out, …) and (groups, out, …)
_TRANSPOSED = {"ConvolutionBackpropData": 1, "GroupConvolutionBackpropData": 2}  # (in, …) and (groups, in, …)
_RECURRENT = {"LSTMSequence", "GRUSequence", "RNNSequence"}


def profile(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], runs: int) -> list[ExecutedNode]:
    """Returns every executed node in order; see `ExecutedNode`."""
    read(artifact.path)  # says what is wrong with a file that holds no model
    return rows(artifact, inputs, _on_device.profile(str(artifact.path), threads, inputs, runs))


def rows(artifact: Artifact, inputs: dict[str, np.ndarray], found: Sequence[Mapping[str, Any]]) -> list[ExecutedNode]:
    """Returns the executed nodes, given what `_on_device.profile` returned."""
    model = read(artifact.path)
    if model.is_dynamic():
        model.reshape({name: value.shape for name, value in inputs.items()})
    products = {op.get_friendly_name(): _macs(op) for op in model.get_ordered_ops() if _macs(op)}
    originals = {one["name"]: one["originals"].split(",") if one.get("originals") else [] for one in found}
    kinds = {one["name"]: one["kind"] for one in found}
    _assign_dense(originals, kinds, [op.get_friendly_name() for op in model.get_ordered_ops() if _is_dense(op)])
    return [_row(one, originals[one["name"]], products) for one in found]


def _assign_dense(originals: dict[str, list[str]], kinds: dict[str, str], dense: list[str]) -> None:
    """Adds the products by constant matrices to the originals of the executed nodes that lost them.

    The plugin rewrites such a product, and may keep the name of what followed it alone. Both lists are in order of execution.
    """
    claimed = {name for found in originals.values() for name in found}
    left = [name for name in dense if name not in claimed]
    without = [name for name, kind in kinds.items() if kind.startswith("FullyConnected")]
    without = [name for name in without if not set(originals[name]) & set(dense)]
    if len(left) == len(without):
        for name, product in zip(without, left, strict=True):
            originals[name] = [product, *originals[name]]


def _is_dense(op: Any) -> bool:
    """Tells whether an op of the model multiplies by a constant matrix."""
    if op.get_type_name() != "MatMul":
        return False
    level = [op.input(1).get_source_output().get_node()]
    while level:
        if any(one.get_type_name() == "Parameter" for one in level):
            return False
        level = [port.get_source_output().get_node() for one in level for port in one.inputs()]
    return True


def _row(found: Mapping[str, Any], originals: list[str], products: dict[str, int]) -> ExecutedNode:
    name, kind = found["name"], found["kind"]
    multiplied = [original for original in originals if original in products]
    source = _origin([*multiplied, *originals, name]) if kind != "Reorder" else None
    return ExecutedNode(
        name=name,
        op=kind,
        module=source[0] if source else None,
        node=source[1] if source else None,
        latency_us=_middle(found["us"]),
        integer=bool(multiplied) and found.get("precision") in _EIGHT_BITS,
        macs=sum(products[product] for product in multiplied),
    )


def _middle(us: Sequence[float]) -> float:
    """Returns the mean of the middle half: the runtime counts whole microseconds, of which small kernels take a few."""
    quarter = len(us) // 4
    return statistics.fmean(sorted(us)[quarter : len(us) - quarter])


def _origin(names: list[str]) -> tuple[str, str] | None:
    """Returns the user's module and the graph's node of the first of these names that has them."""
    return next((found for name in names if (found := origin(name.removesuffix(_WITHOUT_BIAS))) is not None), None)


def _macs(op: Any) -> int:
    """Returns the multiply-accumulates of one op of the model; its shapes must be known."""
    kind = op.get_type_name()
    if kind in _CONVOLUTIONS:
        return math.prod(_shape(op.output(0))) * math.prod(_shape(op.input(1))[_CONVOLUTIONS[kind] :])
    if kind in _TRANSPOSED:
        return math.prod(_shape(op.input(0))) * math.prod(_shape(op.input(1))[_TRANSPOSED[kind] :])
    if kind == "MatMul":
        given = _shape(op.input(0))
        return math.prod(_shape(op.output(0))) * given[-2 if op.get_attributes()["transpose_a"] else -1]
    if kind in _RECURRENT:  # each step of each sample multiplies by the matrices of the input and of the state
        weights = [port for port in op.inputs() if len(port.get_partial_shape()) == 3][-2:]
        samples, steps = _shape(op.input(0))[:2]
        return samples * steps * sum(math.prod(_shape(port)) for port in weights)
    return 0


def _shape(port: Any) -> list[int]:
    """Returns the sizes of an input's or an output's axes; 0 for those that only the values decide."""
    return [size.get_length() if size.is_static else 0 for size in port.get_partial_shape()]
