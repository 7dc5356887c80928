"""What LiteRT really executes, op by op, from its own profiler.

XNNPACK takes over whole stretches of a file's ops, and names what it executes in its own words: a convolution, then perhaps a
clip. It keeps their order, so its ops are laid beside the file's in order; an op of XNNPACK's that has no counterpart belongs to
the op before it.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from penjing import records
from penjing.errors import PenjingError
from penjing.targets._records import Artifact, ExecutedNode
from penjing.targets.litert import _on_device
from penjing.targets.litert._file import NAMES, notes_of, read

OPERATOR, DELEGATED = 2, 8  # kinds of events: an op of the file, and one that a delegate executes
HALF_US = 0.5  # the profiler cuts microseconds off after the point, which takes away half of one on average
_OPS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}

# How XNNPACK's names of what it executes for an op begin; the first that isn't listed for any op is a part of the op before.
_EXECUTED = {
    "CONV_2D": ("Convolution", "Fully Connected"), "DEPTHWISE_CONV_2D": ("Convolution",), "TRANSPOSE_CONV": ("Deconvolution",),
    "FULLY_CONNECTED": ("Fully Connected", "Batch Matrix Multiply"), "BATCH_MATMUL": ("Batch Matrix Multiply",),
    "ADD": ("Add",), "SUB": ("Subtract",), "MUL": ("Multiply",), "DIV": ("Divide",), "MAXIMUM": ("Maximum",),
    "MINIMUM": ("Minimum",), "MAX_POOL_2D": ("Max Pooling",), "AVERAGE_POOL_2D": ("Average Pooling", "Global Average"),
    "MEAN": ("Mean", "Global Average"), "SUM": ("Sum", "Global Sum"), "CONCATENATION": ("Copy", "Concatenate"),
    "PAD": ("Constant Pad",), "PADV2": ("Constant Pad",), "TRANSPOSE": ("Transpose",), "SLICE": ("Slice",),
    "STRIDED_SLICE": ("Slice",), "QUANTIZE": ("Convert",), "DEQUANTIZE": ("Convert",),
    "RESIZE_BILINEAR": ("Resize Bilinear",), "SOFTMAX": ("Softmax", "SoftMax"), "LOGISTIC": ("Sigmoid",),
    "TANH": ("Tanh",), "HARD_SWISH": ("HardSwish", "Hardswish"), "RELU": ("Clamp", "ReLU"), "RELU6": ("Clamp",),
    "RESHAPE": ("Static Reshape", "Copy", "Reshape"),
}  # fmt: skip
_CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}
_MULTIPLIES = {*_CONVOLUTIONS, "FULLY_CONNECTED", "BATCH_MATMUL"}


@dataclass(frozen=True)
class _Op:
    """One op of the file.

    Attributes:
        name: its name in the schema.
        label: the name of the tensor that it makes.
        inputs: shapes of its inputs.
        output: shape of its first output.
        dtypes: the dtypes of its inputs.
        macs: its multiply-accumulates, where the shapes tell of more than are needed.
    """

    name: str
    label: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    dtypes: tuple[str, ...]
    macs: int | None


def profile(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], runs: int) -> list[ExecutedNode]:
    """Returns every op of the file in order, with the time of all that the runtime executes for it; see `ExecutedNode`.

    Raises:
        PenjingError: this version of LiteRT has no profiler of the known form.
    """
    return rows(artifact, inputs, _events(artifact, threads, [inputs[spec.name] for spec in artifact.inputs], runs))


def rows(artifact: Artifact, inputs: dict[str, np.ndarray], found: list[list[list[Any]]]) -> list[ExecutedNode]:
    """Returns the executed ops, given the events that `_on_device.profile` returned."""
    ops = _ops(read(artifact.path.read_bytes()))
    taken = [_by_op(ops, [one for one in run if one[1] in (OPERATOR, DELEGATED)]) for run in found]
    return [
        _row(op, statistics.median(run[place][0] for run in taken), taken[0][place][1]) for place, op in enumerate(ops)
    ]


def _events(artifact: Artifact, threads: int, inputs: Sequence[np.ndarray], runs: int) -> list[list[list[Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "arrays.npz")
        np.savez(file, **{str(place): array for place, array in enumerate(inputs)})  # type: ignore[arg-type]
        command = [sys.executable, _on_device.__file__, str(artifact.path), str(file), str(threads), str(runs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        raise PenjingError(
            f"LiteRT {ai_edge_litert.__version__} gives no profile in the form that version 2.3.0 gives: {reason}"
        )
    events: list[list[list[Any]]] = json.loads(done.stdout.splitlines()[-1])
    return events


def _ops(model: Any) -> list[_Op]:
    graph = model.subgraphs[0]
    known = records.convert(json.loads(notes_of(model)).get("macs", {}), dict[str, int], "macs")
    return [
        _Op(
            _OPS[model.operatorCodes[one.opcodeIndex].builtinCode],
            _text(graph.tensors[one.outputs[0]].name),
            tuple(_shape(graph.tensors[index]) for index in one.inputs if index >= 0),
            _shape(graph.tensors[one.outputs[0]]),
            tuple(NAMES.get(graph.tensors[index].type, "other") for index in one.inputs if index >= 0),
            known.get(str(place)),
        )
        for place, one in enumerate(graph.operators)
    ]


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in (() if tensor.shape is None else tensor.shape))


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _by_op(ops: Sequence[_Op], events: Sequence[Sequence[Any]]) -> list[tuple[float, str]]:
    """Returns the microseconds of each op of the file, and the name of what was executed for it first."""
    found: list[tuple[float, str]] = [(0.0, "")] * len(ops)
    alone = [int(index) for name, kind, index, _ in events if kind == OPERATOR]
    begin, stretch = 0, []
    for name, kind, index, us in events:
        if kind == DELEGATED:
            stretch.append((name, us + HALF_US))
            continue
        _lay(ops, range(begin, int(index)), stretch, alone, found)
        found[int(index)] = (us + HALF_US, name)
        begin, stretch = int(index) + 1, []
    _lay(ops, range(begin, len(ops)), stretch, alone, found)
    return found


def _lay(
    ops: Sequence[_Op],
    places: Sequence[int],
    executed: Sequence[tuple[str, float]],
    alone: Sequence[int],
    found: list[tuple[float, str]],
) -> None:
    """Lays what a delegate executed beside the file's ops between two that it left: as many pairs as can be, in order."""
    places = [place for place in places if place not in alone]
    if not places:
        return
    rows, columns = len(places), len(executed)
    best = np.zeros((rows + 1, columns + 1), np.int32)
    fits = [[name.startswith(_EXECUTED.get(ops[place].name, (" ",))) for name, _ in executed] for place in places]
    for row in reversed(range(rows)):
        for column in reversed(range(columns)):
            best[row, column] = max(
                best[row + 1, column], best[row, column + 1], fits[row][column] + best[row + 1, column + 1]
            )
    row = column = 0
    last = places[0]
    while column < columns:
        name, us = executed[column]
        if row < rows and fits[row][column] and best[row, column] == 1 + best[row + 1, column + 1]:
            last, row = places[row], row + 1
            found[last] = (found[last][0] + us, found[last][1] or name)
            column += 1
        elif row < rows and best[row, column] == best[row + 1, column] and best[row, column] > best[row, column + 1]:
            row += 1
        else:
            found[last] = (found[last][0] + us, found[last][1] or name)
            column += 1


def _row(op: _Op, us: float, executed: str) -> ExecutedNode:
    module, slash, node = op.label.partition("#")[0].rpartition("/")
    return ExecutedNode(
        name=op.label,
        op=op.name,
        module=module if slash else None,
        node=node if slash else None,
        latency_us=us,
        integer=op.name in _MULTIPLIES and op.dtypes[:2] == ("int8", "int8"),
        macs=_macs(op) if op.macs is None else op.macs,
    )


def _macs(op: _Op) -> int:
    if op.name == "FULLY_CONNECTED":
        return math.prod(op.output) * op.inputs[1][-1]
    if op.name == "BATCH_MATMUL":
        return math.prod(op.output) * op.inputs[0][-1]
    if op.name == "CONV_2D":
        return math.prod(op.output) * math.prod(op.inputs[1][1:])
    if op.name == "DEPTHWISE_CONV_2D":
        return math.prod(op.output) * math.prod(op.inputs[1][1:3])
    if op.name == "TRANSPOSE_CONV":
        return math.prod(op.inputs[2]) * math.prod(op.inputs[1][:3])
    return 0
