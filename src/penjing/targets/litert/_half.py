"""Stores the weights of a `.tflite` file in 16 bits where these hold them exactly, each with a DEQUANTIZE behind it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from penjing.targets._half import as_half
from penjing.targets.litert._file import IDENTIFIER, Builder, code, notes_of, read, set_notes

WIDEN = "DEQUANTIZE"


def store_half(path: Path) -> None:
    """Rewrites a `.tflite` file. XNNPACK widens the weights when it loads the file."""
    model = read(path.read_bytes())
    graph = model.subgraphs[0]
    widening = []
    for index, tensor in enumerate(list(graph.tensors)):
        data = model.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
            continue
        array = np.frombuffer(bytes(np.asarray(data, np.uint8)), np.float32).reshape(tensor.shape)
        small = as_half(array)
        if small is not None:
            widening.append(_widened(model, index, small))
    if not widening:
        return
    notes = json.loads(notes_of(model))
    notes["macs"] = {str(int(place) + len(widening)): macs for place, macs in notes.get("macs", {}).items()}
    set_notes(model, notes)
    graph.operators = [*widening, *graph.operators]
    builder = Builder(path.stat().st_size)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    path.write_bytes(bytes(builder.Output()))


def _widened(model: Any, index: int, small: np.ndarray) -> Any:
    """Moves a constant's values into a tensor of 16 bits; returns the op that makes the constant of it."""
    graph, wide = model.subgraphs[0], model.subgraphs[0].tensors[index]
    buffer = schema.BufferT()
    buffer.data = small.reshape(-1).view(np.uint8)
    model.buffers.append(buffer)
    narrow = schema.TensorT()
    narrow.shape, narrow.type, narrow.buffer = wide.shape, schema.TensorType.FLOAT16, len(model.buffers) - 1
    narrow.name, narrow.hasRank = _text(wide.name) + "_float16", True
    graph.tensors.append(narrow)
    model.buffers[wide.buffer].data = None
    wide.buffer = 0
    made = schema.OperatorT()
    made.opcodeIndex = _place_of_code(model)
    made.inputs, made.outputs = np.array([len(graph.tensors) - 1], np.int32), np.array([index], np.int32)
    return made


def _place_of_code(model: Any) -> int:
    """Returns the place of the widening op among the file's kinds of ops, and adds it where it isn't there."""
    for place, one in enumerate(model.operatorCodes):
        if one.builtinCode == getattr(schema.BuiltinOperator, WIDEN):
            return place
    model.operatorCodes.append(code(WIDEN))
    return len(model.operatorCodes) - 1


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
